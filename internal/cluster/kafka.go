package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	heapDefaultMB = 512
	toolHeapMB    = 256
	readyTimeout  = 2 * time.Minute  // from the start of the processes until the cluster is usable
	stopTimeout   = 30 * time.Second // a broker that shuts down flushes its logs
	nodesMax      = 9
)

// KafkaConfig says what cluster to open. The zero value is one node with settings that suit tests.
type KafkaConfig struct {
	Nodes    int               // each is broker and controller; 0 means 1
	Dir      string            // data of all nodes; kept by Close. Empty: a temporary folder that Close removes
	Cache    string            // where jars are kept; empty: pawl in the user's cache folder
	Version  string            // of Apache Kafka; empty: KafkaVersion
	Settings map[string]string // server.properties that override those for tests, see properties
	HeapMB   int               // per node; 0 means 512
	JVM      []string          // JVM flags instead of those that make a start fast; the heap is always HeapMB
	Listener Listener          // how clients connect; zero: plaintext, no authentication

	// ACL turns the standard authorizer on: who authenticates through Listener may do what ACLs
	// allow and nothing else, except SuperUser. InternalBrokers stay all-powerful.
	ACL bool

	// Advertise, if set, is called once per node before it starts, with the address that the node
	// listens on for clients. What it returns is what the node tells clients to connect to: the
	// place for a proxy.
	Advertise func(node int, address string) (string, error)

	Progress func(string) // told about slow steps; may be nil
}

// Kafka is a running cluster. Its nodes are numbered from 0, which is also their broker id. The
// methods may be called from several goroutines.
type Kafka struct {
	config  KafkaConfig
	jars    *jars
	java    string
	spawner *spawner
	folder  *folder
	nodes   []*node

	closeOnce sync.Once
	closeErr  error
}

// node is one broker and controller.
type node struct {
	id         int
	folder     string
	internal   port // plaintext: the other brokers and InternalBrokers
	client     port
	controller port
	advertised string // what clients are told

	mu      sync.Mutex
	process *process // nil before the first start
}

func (n *node) logPath() string        { return filepath.Join(n.folder, "log") }
func (n *node) dataPath() string       { return filepath.Join(n.folder, "data") }
func (n *node) propertiesPath() string { return filepath.Join(n.folder, "server.properties") }

// OpenKafka fetches what is missing, formats the nodes' storage, starts them and waits until every
// node serves clients. ctx bounds the opening only: the cluster lives until Close.
func OpenKafka(ctx context.Context, config KafkaConfig) (*Kafka, error) {
	if config.Nodes == 0 {
		config.Nodes = 1
	}
	if config.Nodes < 1 || config.Nodes > nodesMax {
		return nil, fmt.Errorf("open Kafka: %d nodes, want 1 to %d", config.Nodes, nodesMax)
	}
	if err := config.Listener.validate(); err != nil {
		return nil, fmt.Errorf("open Kafka: %w", err)
	}
	if config.HeapMB == 0 {
		config.HeapMB = heapDefaultMB
	}
	if config.Progress == nil {
		config.Progress = func(string) {}
	}
	java, err := javaBinary()
	if err != nil {
		return nil, fmt.Errorf("open Kafka: %w", err)
	}
	jars, err := newJars(config.Cache, config.Version)
	if err != nil {
		return nil, fmt.Errorf("open Kafka: %w", err)
	}
	if err := jars.fetch(ctx, config.Progress); err != nil {
		return nil, fmt.Errorf("open Kafka: %w", err)
	}
	return openKafka(ctx, config, jars, java)
}

// openKafka is OpenKafka with a checked configuration and the jars in place.
func openKafka(ctx context.Context, config KafkaConfig, jars *jars, java string) (_ *Kafka, err error) {
	folder, err := openFolder(config.Dir, "kafka")
	if err != nil {
		return nil, fmt.Errorf("open Kafka: %w", err)
	}
	k := &Kafka{config: config, jars: jars, java: java, spawner: openSpawner(), folder: folder}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open Kafka %s: %w", jars.version, err), k.Close())
		}
	}()
	if config.JVM == nil {
		// Without an archive everything works, a second later.
		if err := k.archiveClasses(ctx); err != nil {
			config.Progress("no quick starts of Kafka: " + err.Error())
		}
		k.config.JVM = append(fastStart(), k.archiveFlags()...)
	}
	for id := range config.Nodes {
		if err := k.addNode(ctx, id); err != nil {
			return nil, err
		}
	}
	if err := k.format(ctx); err != nil {
		return nil, err
	}
	config.Progress(fmt.Sprintf("starting Apache Kafka %s, nodes: %d", jars.version, config.Nodes))
	if err := k.Start(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// addNode gives a node its folder and its ports.
func (k *Kafka) addNode(ctx context.Context, id int) error {
	n := &node{id: id, folder: filepath.Join(k.folder.path, "node-"+strconv.Itoa(id))}
	if err := os.MkdirAll(n.folder, 0o750); err != nil {
		return fmt.Errorf("make folder of node %d: %w", id, err)
	}
	k.nodes = append(k.nodes, n) // before the ports, so that Close gives back those it got
	for _, p := range []*port{&n.internal, &n.client, &n.controller} {
		var err error
		if *p, err = openPort(ctx); err != nil {
			return err
		}
	}
	n.advertised = n.client.address()
	if k.config.Advertise != nil {
		address, err := k.config.Advertise(id, n.advertised)
		if err != nil {
			return fmt.Errorf("advertise node %d: %w", id, err)
		}
		n.advertised = address
	}
	return nil
}

// Brokers returns the addresses for clients, in order of the nodes: those that the nodes advertise.
func (k *Kafka) Brokers() []string {
	addresses := make([]string, len(k.nodes))
	for i, n := range k.nodes {
		addresses[i] = n.advertised
	}
	return addresses
}

// InternalBrokers returns the addresses of a second listener, which is plaintext, knows no
// authentication, may do everything and goes around what KafkaConfig.Advertise put before the nodes.
func (k *Kafka) InternalBrokers() []string {
	addresses := make([]string, len(k.nodes))
	for i, n := range k.nodes {
		addresses[i] = n.internal.address()
	}
	return addresses
}

// Nodes returns how many nodes the cluster has, running or not.
func (k *Kafka) Nodes() int { return len(k.nodes) }

// Version returns the version of Apache Kafka.
func (k *Kafka) Version() string { return k.jars.version }

// LogPath returns where a node writes its log, over restarts, until Close; empty for an unknown node.
func (k *Kafka) LogPath(node int) string {
	n, err := k.node(node)
	if err != nil {
		return ""
	}
	return n.logPath()
}

// Pid returns the process id of a node, 0 when it is not running.
func (k *Kafka) Pid(node int) int {
	n, err := k.node(node)
	if err != nil {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || !n.process.alive() {
		return 0
	}
	return n.process.pid()
}

// Start starts those of the given nodes (none given: all) that are not running, and waits until each
// of them serves clients as a member of the cluster. Together the running nodes must be a majority.
func (k *Kafka) Start(ctx context.Context, nodes ...int) error {
	if len(nodes) == 0 {
		for id := range k.nodes {
			nodes = append(nodes, id)
		}
	}
	for _, id := range nodes {
		n, err := k.node(id)
		if err != nil {
			return err
		}
		if err := k.launch(ctx, n); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, id := range nodes {
		if err := k.waitReady(ctx, k.nodes[id]); err != nil {
			return err
		}
	}
	return nil
}

// launch starts the process of a node unless it runs already.
func (k *Kafka) launch(ctx context.Context, n *node) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.alive() {
		return nil
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of node %d: %w", n.id, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }() // the child has its own
	args := append(k.jvmFlags(k.config.HeapMB), "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS", "kafka.Kafka", n.propertiesPath())
	// The process outlives ctx: Close ends it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), k.java, args...) //nolint:gosec // Java, arguments of ours
	cmd.Dir = n.folder
	cmd.Stdout, cmd.Stderr = log, log
	if n.process, err = k.spawner.start(cmd); err != nil {
		return fmt.Errorf("node %d: %w", n.id, err)
	}
	return nil
}

// jvmFlags are the flags of every JVM of the cluster, up to and including the class path.
func (k *Kafka) jvmFlags(heapMB int) []string {
	return append(slices.Clone(k.config.JVM), fmt.Sprintf("-Xmx%dm", heapMB), "-cp", k.jars.classPath())
}

// fastStart are JVM flags for processes that live for seconds or minutes: the quick compiler only,
// and the collector with the fewest threads.
func fastStart() []string {
	return []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.awt.headless=true"}
}

// Kill ends a node at once, as a crash would, and returns when it has gone. A node that does not run
// is fine.
func (k *Kafka) Kill(node int) error {
	return k.with(node, func(p *process) error { return p.kill() })
}

// Stop shuts a node down in good order and returns when it has gone. A node that does not run is
// fine; one that takes longer than 30 s is killed and reported.
func (k *Kafka) Stop(node int) error {
	return k.with(node, func(p *process) error { return p.stop(syscall.SIGTERM, stopTimeout) })
}

// Pause freezes a node (SIGSTOP): its connections stay open and nothing answers.
func (k *Kafka) Pause(node int) error {
	return k.with(node, func(p *process) error { return p.signal(syscall.SIGSTOP) })
}

// Resume lets a paused node go on.
func (k *Kafka) Resume(node int) error {
	return k.with(node, func(p *process) error { return p.signal(syscall.SIGCONT) })
}

func (k *Kafka) node(id int) (*node, error) {
	if id < 0 || id >= len(k.nodes) {
		return nil, fmt.Errorf("node %d: want 0 to %d", id, len(k.nodes)-1)
	}
	return k.nodes[id], nil
}

// with does something to the process of a node that was started at least once.
func (k *Kafka) with(id int, do func(*process) error) error {
	n, err := k.node(id)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return fmt.Errorf("node %d: %w", id, errNotRunning)
	}
	if err := do(n.process); err != nil {
		return fmt.Errorf("node %d: %w", id, err)
	}
	return nil
}

// Close ends all nodes, gives their ports back and removes the temporary folder: killed, because
// nobody needs their data any more; nodes whose folder is kept are shut down in good order instead. It
// may be called more than once.
func (k *Kafka) Close() error {
	k.closeOnce.Do(func() {
		var errs []error
		for _, n := range k.nodes {
			n.mu.Lock()
			switch {
			case n.process == nil:
			case k.folder.temporary:
				errs = append(errs, n.process.kill())
			default:
				errs = append(errs, n.process.stop(syscall.SIGTERM, stopTimeout))
			}
			n.mu.Unlock()
			for _, p := range []port{n.internal, n.client, n.controller} {
				if p.lock != nil {
					errs = append(errs, p.close())
				}
			}
		}
		k.spawner.close()
		errs = append(errs, k.folder.close())
		if err := errors.Join(errs...); err != nil {
			k.closeErr = fmt.Errorf("close Kafka: %w", err)
		}
	})
	return k.closeErr
}

// Tool prepares one of Kafka's own programs, such as org.apache.kafka.tools.VerifiableProducer, on
// the class path of the cluster. The caller sets its streams and runs it; it ends with ctx, or when
// the caller's process does.
func (k *Kafka) Tool(ctx context.Context, mainClass string, args ...string) *exec.Cmd {
	all := append(k.jvmFlags(toolHeapMB), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", mainClass)
	cmd := exec.CommandContext(ctx, k.java, append(all, args...)...) //nolint:gosec // Java, tools of Kafka
	cmd.Dir = k.folder.path
	// Started by the caller, hence from any thread. The runtime keeps its threads, save those of
	// goroutines that end while locked to one, so the tie to the thread holds here too.
	dieWithParent(cmd)
	return cmd
}
