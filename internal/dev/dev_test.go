package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pawl/internal/app"
)

func notify(c chan<- os.Signal) { signal.Notify(c, syscall.SIGTERM) }

// The configuration that dev writes is one that the processors take, without a word of warning.
func TestWrittenSettingsAreValid(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := writeSettings(file, []string{"127.0.0.1:1001", "127.0.0.1:1002"}, nil); err != nil {
		t.Fatal(err)
	}
	conf, origins, err := app.Load(app.LoadOptions{File: file, Set: []string{"instance=a", "admin.listen=127.0.0.1:9190"}})
	if err != nil {
		t.Fatal(err)
	}
	if warnings := origins.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if conf.Application != application || !slices.Equal(conf.Kafka.Brokers, []string{"127.0.0.1:1001", "127.0.0.1:1002"}) ||
		conf.Routes[0].Topics[0] != inputTopic || conf.Txn.Lanes != lanes || conf.Outputs["priced"].Partitions != partitions {
		t.Errorf("configuration = %+v", conf)
	}
}

// All mistakes come at once, by the names of the flags.
func TestConfigNamesEveryMistake(t *testing.T) {
	t.Parallel()
	err := DemoConfig{Config: Config{Broker: "carrier pigeon", Nodes: 4, Instances: 1, Rate: -1, DataDir: "x"}, Orders: 1, BadShare: 2}.Validate()
	for _, want := range []string{"--kafka", "--brokers", "--instances", "--rate", "--data-dir", "--orders", "--bad"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	good := DemoConfig{Config: Config{Broker: BrokerAuto, Nodes: 1, Instances: 2, Rate: 100}, Orders: 1000, BadShare: 0.01}
	if err := good.Validate(); err != nil {
		t.Errorf("a good configuration is refused: %v", err)
	}
}

// auto takes the embedded broker where Java is missing, and says why.
func TestAutoSaysWhyItTakesTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	config := Config{Broker: BrokerAuto, Nodes: 2, java: func() error { return errors.New("no Java runtime found") }}
	choice, why := config.choose()
	broker, err := openBroker(t.Context(), config, choice, t.TempDir(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.close() //nolint:errcheck // it is in memory
	if broker.kind != BrokerEmbedded || len(broker.addresses) != 2 || why != "embedded: no Java runtime found" {
		t.Errorf("broker %+v, because %q", broker, why)
	}
}

// The embedded broker takes the same ports every time where they are free, and others where not.
func TestFixedPortsGiveWay(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, text, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(t.Context(), port, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(ports) != 2 || slices.Contains(ports, port) || ports[0] == ports[1] {
		t.Errorf("ports %v beside %d, which is taken", ports, port)
	}
}

// A folder of a run that is no more goes with the next run, that of a living one stays.
func TestSweepRemovesWhatKilledRunsLeft(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dead, _ := openChild(t, "sleep")
	gone := dead.pid()
	dead.kill()
	living, _ := openChild(t, "sleep")
	left := filepath.Join(parent, folderPrefix+strconv.Itoa(gone))
	used := filepath.Join(parent, folderPrefix+strconv.Itoa(living.pid()))
	other := filepath.Join(parent, folderPrefix+"notes")
	for _, folder := range []string{left, used, other} {
		if err := os.Mkdir(folder, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	sweep(parent)
	for folder, want := range map[string]bool{left: false, used: true, other: true} {
		if _, err := os.Stat(folder); (err == nil) != want {
			t.Errorf("%s: %v, want there = %v", filepath.Base(folder), err, want)
		}
	}
}

// Two runs never share a data folder: their brokers would destroy each other's log.
func TestDataDirBelongsToOneRun(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "data")
	open := func() (*rig, error) {
		r := &rig{config: Config{DataDir: folder}}
		return r, r.openFolder()
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	second, err := open()
	if err == nil || !strings.Contains(err.Error(), "does another `processor dev` use it?") {
		t.Errorf("second run: %v, want that the folder is in use", err)
	}
	for _, r := range []*rig{first, second} {
		if err := r.close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	third, err := open()
	if err != nil {
		t.Errorf("after the first run: %v", err)
	}
	third.close(t.Context()) //nolint:errcheck // a lock and no more
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("the folder is gone: %v", err)
	}
}

func newTestInstance(t *testing.T, program, admin string) *instance {
	t.Helper()
	return &instance{name: "a", admin: admin, program: program, config: "config.yaml", log: filepath.Join(t.TempDir(), "a.log")}
}

// An instance that ends before it is ready is an error with the end of its log in it, at once.
func TestReadyQuotesTheLogOfAnInstanceThatEnded(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "processor")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'schema behind: run `processor migrate up`'\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	i := newTestInstance(t, program, "127.0.0.1:1")
	if err := i.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := i.ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "processor migrate up") {
		t.Errorf("error = %v, want how it ended and its log", err)
	}
}

// An instance that is up and not ready is asked again until it is.
func TestReadyWaitsForTheAnswer(t *testing.T) {
	t.Parallel()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/readyz" || asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	i := newTestInstance(t, "", strings.TrimPrefix(server.URL, "http://"))
	i.process, _ = openChild(t, "sleep")
	if err := i.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
}

// The child runs with the written configuration, whatever the environment of the caller says.
func TestInstanceDoesNotInheritSettings(t *testing.T) {
	t.Parallel()
	got := environment([]string{"HOME=/root", "PROCESSOR_KAFKA_BROKERS=elsewhere:9092", "NO_COLOR=1"})
	if want := []string{"HOME=/root", "NO_COLOR=1"}; !slices.Equal(got, want) {
		t.Errorf("environment = %v, want %v", got, want)
	}
}

// keepUp starts an instance again that was killed, and gives up on one that keeps dying.
func TestKeepUpGivesUpOnAnInstanceThatKeepsDying(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "processor")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho out of order\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	i := newTestInstance(t, program, "127.0.0.1:1")
	if err := i.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := i.keepUp(ctx, func(string) {})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("died %d times", deathsMax)) || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("error = %v, want that it died %d times, and its log", err, deathsMax)
	}
}

func TestInstancesHaveTheirOwnNames(t *testing.T) {
	t.Parallel()
	for i, want := range map[int]string{0: "a", 1: "b", 25: "z", 26: "a1", 27: "b1"} {
		if got := instanceName(i); got != want {
			t.Errorf("instance %d is %q, want %q", i, got, want)
		}
	}
}

// The demo begins when each processor dispatches: a victim without lanes could not be hit in a call.
func TestWaitLanesWaitsForEveryProcessor(t *testing.T) {
	t.Parallel()
	// What each owns at each look: all at one of them, some at nobody, at last all and evenly.
	owned := [][]int{{partitions, partitions / 2, partitions / 2}, {0, 1, partitions / 2}}
	looks := make([]int, len(owned))
	r := &rig{}
	for n := range owned {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			mine := owned[n][min(looks[n], len(owned[n])-1)]
			looks[n]++
			lanes := make([]string, 0, partitions)
			for lane := range partitions {
				lanes = append(lanes, fmt.Sprintf(`{"lane":%d,"owner":%v}`, lane, lane < mine && request.URL.Path == "/api/v1/status"))
			}
			_, _ = fmt.Fprintf(w, `{"effects":{"dispatch":{"lanes":[%s]}}}`, strings.Join(lanes, ","))
		}))
		t.Cleanup(server.Close)
		r.instances = append(r.instances, newTestInstance(t, "", strings.TrimPrefix(server.URL, "http://")))
	}
	if err := r.waitLanes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(looks, []int{3, 3}) {
		t.Errorf("looked %v times, want 3 at each", looks)
	}
}
