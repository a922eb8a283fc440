package deploy

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// readCompose loads docker-compose.yml as the compose command does: schema, anchors, variables and
// dependencies are checked on the way.
func readCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("load docker-compose.yml: %v", err)
	}
	return project
}

// processors returns the services that run the processor for good.
func processors(project *types.Project) []types.ServiceConfig {
	var found []types.ServiceConfig
	for _, name := range project.ServiceNames() {
		if strings.HasPrefix(name, "processor-") {
			found = append(found, project.Services[name])
		}
	}
	return found
}

// value returns an environment variable of a service, or "".
func value(service types.ServiceConfig, name string) string {
	if value := service.Environment[name]; value != nil {
		return *value
	}
	return ""
}

func TestComposePinsEveryImage(t *testing.T) {
	t.Parallel()
	for name, service := range readCompose(t).Services {
		repository, tag, found := strings.Cut(service.Image, ":")
		if !found || tag == "" || tag == "latest" {
			t.Errorf("service %s uses image %q, want a pinned tag", name, service.Image)
		}
		if ours := repository == "pawl/processor"; ours != (service.Build != nil) {
			t.Errorf("service %s uses image %q with build %v: ours is built, others are pulled", name, service.Image, service.Build)
		}
	}
}

// Two processes of one instance name would fence each other for ever.
func TestComposeProcessorsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	services := processors(readCompose(t))
	if len(services) != 2 {
		t.Fatalf("docker-compose.yml has %d processors, want 2", len(services))
	}
	seen := map[string]string{}
	for _, service := range services {
		instance := value(service, "PROCESSOR_INSTANCE")
		if instance == "" {
			t.Errorf("service %s has no PROCESSOR_INSTANCE: its host name changes with each new container", service.Name)
		}
		if other, taken := seen[instance]; taken {
			t.Errorf("services %s and %s are both instance %q", other, service.Name, instance)
		}
		seen[instance] = service.Name
	}
}

func TestComposeProcessorsWaitForBrokerAndTopicsOnly(t *testing.T) {
	t.Parallel()
	for _, service := range processors(readCompose(t)) {
		want := map[string]string{"kafka": types.ServiceConditionHealthy, "topics": types.ServiceConditionCompletedSuccessfully}
		for name, condition := range want {
			if got := service.DependsOn[name].Condition; got != condition {
				t.Errorf("service %s depends on %s by %q, want %q", service.Name, name, got, condition)
			}
		}
		if _, found := service.DependsOn["postgres"]; found {
			t.Errorf("service %s waits for postgres: the stream must run without it", service.Name)
		}
	}
}

func TestComposeChecksTheHealthOfEveryService(t *testing.T) {
	t.Parallel()
	project := readCompose(t)
	for name, service := range project.Services {
		fromImage := strings.HasPrefix(name, "processor-") // HEALTHCHECK of the Dockerfile
		oneShot := name == "topics"
		if (service.HealthCheck == nil || service.HealthCheck.Disable) && !fromImage && !oneShot {
			t.Errorf("service %s has no healthcheck", name)
		}
		if fromImage && service.HealthCheck != nil {
			t.Errorf("service %s replaces the image's HEALTHCHECK", name)
		}
		for dependency, how := range service.DependsOn {
			other := project.Services[dependency]
			if how.Condition == types.ServiceConditionHealthy && (other.HealthCheck == nil || other.HealthCheck.Disable) {
				t.Errorf("service %s waits for %s to be healthy, which has no healthcheck", name, dependency)
			}
		}
	}
}

func TestComposeHardensTheProcessors(t *testing.T) {
	t.Parallel()
	for _, service := range processors(readCompose(t)) {
		if !service.ReadOnly || !slices.Contains(service.CapDrop, "ALL") || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("service %s: want read_only, cap_drop ALL and no-new-privileges", service.Name)
		}
	}
}

// Nothing of a development stack with known passwords may be reached from another machine.
func TestComposePublishesOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, service := range readCompose(t).Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("service %s publishes port %s on %q, want 127.0.0.1", name, port.Published, port.HostIP)
			}
			if other, taken := seen[port.Published]; taken {
				t.Errorf("services %s and %s both publish port %s", other, name, port.Published)
			}
			seen[port.Published] = name
		}
	}
}

// Docker makes an empty folder of a missing file that is mounted; the service then fails far from
// the cause.
func TestComposeMountsWhatExists(t *testing.T) {
	t.Parallel()
	for name, service := range readCompose(t).Services {
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil {
				t.Errorf("service %s mounts %s: %v", name, volume.Source, err)
			}
			if !volume.ReadOnly {
				t.Errorf("service %s mounts %s writable", name, volume.Source)
			}
		}
	}
}

// The processors reach the broker by the address that it advertises, or they connect once and never
// again.
func TestComposeBrokerAdvertisesWhatTheProcessorsDial(t *testing.T) {
	t.Parallel()
	var settings struct {
		Application string
		Kafka       struct{ Brokers []string }
		Txn         struct {
			DrainTimeout string `yaml:"drain_timeout"`
		}
	}
	readYAML(t, "deploy/compose/processor.yaml", &settings)
	advertised := map[string]bool{}
	for listener := range strings.SplitSeq(value(readCompose(t).Services["kafka"], "KAFKA_ADVERTISED_LISTENERS"), ",") {
		_, address, _ := strings.Cut(listener, "://")
		advertised[address] = true
	}
	for _, broker := range settings.Kafka.Brokers {
		if !advertised[broker] {
			t.Errorf("deploy/compose/processor.yaml dials %s, the broker advertises %v", broker, advertised)
		}
	}
	if len(settings.Kafka.Brokers) == 0 {
		t.Error("deploy/compose/processor.yaml names no brokers")
	}
}

// The orders to try the stack with are what the handler reads, but for the last, which shows a dead
// letter.
func TestSampleOrdersFollowTheSchema(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(root, "internal/handlers/schema/order.v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/compose/orders.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i, line := range lines {
		order, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		err = schema.Validate(order)
		if last := i == len(lines)-1; last != (err != nil) {
			t.Errorf("line %d: %v; want a mistake in the last line and no other", i+1, err)
		}
	}
}

func TestPrometheusScrapesEveryProcessor(t *testing.T) {
	t.Parallel()
	var settings struct {
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "deploy/prometheus/prometheus.yml", &settings)
	var targets []string
	for _, job := range settings.ScrapeConfigs {
		for _, static := range job.StaticConfigs {
			targets = append(targets, static.Targets...)
		}
	}
	for _, service := range processors(readCompose(t)) {
		if want := net.JoinHostPort(service.Name, "9090"); !slices.Contains(targets, want) {
			t.Errorf("deploy/prometheus/prometheus.yml does not scrape %s, only %v", want, targets)
		}
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
}

// Grafana finds the dashboards and asks the Prometheus of the same stack, which has the rules.
func TestGrafanaShowsTheDashboardsOfTheStack(t *testing.T) {
	t.Parallel()
	project := readCompose(t)
	mounted := map[string]string{}
	for _, service := range []string{"grafana", "prometheus"} {
		for _, volume := range project.Services[service].Volumes {
			mounted[volume.Target] = volume.Source
		}
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, "deploy/grafana/provisioning/dashboards/pawl.yml", &providers)
	for _, provider := range providers.Providers {
		if source := mounted[provider.Options.Path]; !strings.HasSuffix(source, "/deploy/grafana/dashboards") {
			t.Errorf("grafana looks for dashboards in %s, where %q is mounted", provider.Options.Path, source)
		}
	}
	var sources struct {
		Datasources []struct{ URL string }
	}
	readYAML(t, "deploy/grafana/provisioning/datasources/prometheus.yml", &sources)
	if len(sources.Datasources) != 1 || sources.Datasources[0].URL != "http://prometheus:9090" || len(providers.Providers) != 1 {
		t.Errorf("grafana has the sources %v and the providers %v", sources.Datasources, providers.Providers)
	}
	if source := mounted["/etc/prometheus"]; !strings.HasSuffix(source, "/deploy/prometheus") {
		t.Errorf("prometheus reads its rules in %q", source)
	}
}
