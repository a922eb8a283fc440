//go:build integration

package helm

import (
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

func statefulSet(t *testing.T, all []runtime.Object) *apps.StatefulSet {
	t.Helper()
	return one[*apps.StatefulSet](t, all)
}

// The profile "restricted" of the Pod Security Standards, and more: a root file system that cannot be written and no token.
func TestPodsMayDoNothingButTheirWork(t *testing.T) {
	t.Parallel()
	for _, set := range valueSets(t) {
		for name, pod := range podSpecs(t, objects(t, install(t, values(t, set)))) {
			spec := pod.Spec
			if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
				t.Errorf("%s: %s has a token of the API", set, name)
			}
			whole := spec.SecurityContext
			if !*whole.RunAsNonRoot || *whole.RunAsUser != 65532 || whole.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: %s runs as %+v", set, name, whole)
			}
			if spec.HostNetwork || spec.HostPID || spec.HostIPC {
				t.Errorf("%s: %s is in a namespace of its node", set, name)
			}
			if len(spec.Containers) != 1 {
				t.Fatalf("%s: %s has %d containers", set, name, len(spec.Containers))
			}
			own := spec.Containers[0].SecurityContext
			if *own.AllowPrivilegeEscalation || !*own.ReadOnlyRootFilesystem || !slices.Equal(own.Capabilities.Drop, []core.Capability{"ALL"}) {
				t.Errorf("%s: the container of %s runs as %+v", set, name, own)
			}
		}
	}
}

// The transactional ids hang on the name: it is the pod's, which a StatefulSet gives again.
func TestInstanceIsTheNameOfThePod(t *testing.T) {
	t.Parallel()
	set := statefulSet(t, objects(t, install(t, values(t, "defaults.yaml"))))
	env := environment(set.Spec.Template.Spec.Containers[0])
	if from := env["PROCESSOR_INSTANCE"].ValueFrom; from == nil || from.FieldRef.FieldPath != "metadata.name" {
		t.Errorf("PROCESSOR_INSTANCE is %+v", env["PROCESSOR_INSTANCE"])
	}
	if set.Spec.PodManagementPolicy != apps.ParallelPodManagement {
		t.Errorf("pods are managed %s: a pod that is not ready would hold up the others", set.Spec.PodManagementPolicy)
	}
}

func environment(container core.Container) map[string]core.EnvVar {
	found := map[string]core.EnvVar{}
	for _, variable := range container.Env {
		found[variable.Name] = variable
	}
	return found
}

// Each variable ..._FILE names a file that is mounted, and each mounted Secret has one or is named by the configuration.
func TestSecretsAreFilesThatTheSettingsName(t *testing.T) {
	t.Parallel()
	all := objects(t, install(t, values(t, "everything.yaml")))
	text := only[*core.ConfigMap](all)[0].Data["processor.yaml"]
	for name, pod := range podSpecs(t, all) {
		const folder = "/run/secrets/pawl"
		mounted := map[string]bool{}
		for _, volume := range pod.Spec.Volumes {
			if volume.Name == "secrets" {
				for _, source := range volume.Projected.Sources {
					mounted[folder+"/"+source.Secret.Items[0].Path] = false
				}
			}
		}
		container := pod.Spec.Containers[0]
		if !slices.ContainsFunc(container.VolumeMounts, func(m core.VolumeMount) bool {
			return m.Name == "secrets" && m.MountPath == folder && m.ReadOnly
		}) {
			t.Errorf("%s does not mount the secrets", name)
		}
		for _, variable := range container.Env {
			if !strings.HasSuffix(variable.Name, "_FILE") {
				continue
			}
			if _, is := mounted[variable.Value]; !is {
				t.Errorf("%s: %s is %s, which is not mounted", name, variable.Name, variable.Value)
			}
			mounted[variable.Value] = true
		}
		if len(mounted) != 8 {
			t.Errorf("%s mounts %d files, want 8", name, len(mounted))
		}
		for path, named := range mounted {
			if !named && !strings.Contains(text, path) {
				t.Errorf("%s: nobody names %s", name, path)
			}
		}
	}
}

func TestProbesAskWhatTheProcessServes(t *testing.T) {
	t.Parallel()
	for _, set := range valueSets(t) {
		container := statefulSet(t, objects(t, install(t, values(t, set)))).Spec.Template.Spec.Containers[0]
		for path, probe := range map[string]*core.Probe{"/startupz": container.StartupProbe, "/livez": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
			if probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != container.Ports[0].Name {
				t.Errorf("%s: the probe of %s asks %+v, the port is %+v", set, path, probe.HTTPGet, container.Ports)
			}
		}
	}
}

// SIGKILL must not come before the drain is over.
func TestGracePeriodFollowsTheDrain(t *testing.T) {
	t.Parallel()
	for drain, want := range map[string]int64{"25s": 40, "1m30s": 105, "500ms": 16, "1.5s": 17, "1h": 3615, "1h1m1s": 3676, "1m0.001s": 76} {
		set := values(t, "defaults.yaml")
		change(set, drain, "config", "txn", "drain_timeout")
		spec := statefulSet(t, objects(t, install(t, set))).Spec.Template.Spec
		if *spec.TerminationGracePeriodSeconds != want {
			t.Errorf("with txn.drain_timeout %s pods have %d s to stop, want %d", drain, *spec.TerminationGracePeriodSeconds, want)
		}
	}
	set := values(t, "defaults.yaml")
	change(set, 120, "terminationGracePeriodSeconds")
	if got := *statefulSet(t, objects(t, install(t, set))).Spec.Template.Spec.TerminationGracePeriodSeconds; got != 120 {
		t.Errorf("pods have %d s to stop, want the 120 that are given", got)
	}
}

// Another configuration restarts the pods; another number of them does not.
func TestPodsAreRestartedByTheirConfigurationOnly(t *testing.T) {
	t.Parallel()
	template := func(value any, path ...string) string {
		set := values(t, "defaults.yaml")
		change(set, value, path...)
		pod := statefulSet(t, objects(t, install(t, set))).Spec.Template
		return pod.String()
	}
	before := template(2, "replicas")
	if before != template(5, "replicas") {
		t.Error("more pods restart those that are there")
	}
	if before == template("debug", "config", "log", "level") {
		t.Error("another configuration does not reach the pods")
	}
}

// KEDA sets the number of pods: the chart would take it back with each upgrade.
func TestReplicasAreKEDAsWhereItScales(t *testing.T) {
	t.Parallel()
	if set := statefulSet(t, objects(t, install(t, values(t, "everything.yaml")))); set.Spec.Replicas != nil {
		t.Errorf("the StatefulSet wants %d pods", *set.Spec.Replicas)
	}
	if set := statefulSet(t, objects(t, install(t, values(t, "defaults.yaml")))); set.Spec.Replicas == nil || *set.Spec.Replicas != 2 {
		t.Errorf("the StatefulSet wants %v pods", set.Spec.Replicas)
	}
}

// Every selector finds the pods that it is for, and the Service not those of the jobs.
func TestSelectorsFindTheirPods(t *testing.T) {
	t.Parallel()
	all := objects(t, install(t, values(t, "everything.yaml")))
	set := statefulSet(t, all)
	service, budget, network := one[*core.Service](t, all), one[*policy.PodDisruptionBudget](t, all), one[*networking.NetworkPolicy](t, all)
	if set.Spec.ServiceName != service.Name {
		t.Errorf("the StatefulSet names the service %s, which is %s", set.Spec.ServiceName, service.Name)
	}
	spread := set.Spec.Template.Spec.TopologySpreadConstraints
	if len(spread) != 2 {
		t.Fatalf("there are %d constraints of spread, want 2", len(spread))
	}
	processorOnly := map[string]*meta.LabelSelector{
		"StatefulSet": set.Spec.Selector, "Service": {MatchLabels: service.Spec.Selector}, "PodDisruptionBudget": budget.Spec.Selector,
		"spread over nodes": spread[0].LabelSelector, "spread over zones": spread[1].LabelSelector,
	}
	for name, pod := range podSpecs(t, all) {
		if !matches(t, &network.Spec.PodSelector, pod.Labels) {
			t.Errorf("the NetworkPolicy is not about %s", name)
		}
		for selector, one := range processorOnly {
			if got, want := matches(t, one, pod.Labels), strings.HasPrefix(name, "StatefulSet"); got != want {
				t.Errorf("%s: does its selector find %s? %t", selector, name, got)
			}
		}
	}
}

func matches(t *testing.T, selector *meta.LabelSelector, of map[string]string) bool {
	t.Helper()
	parsed, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Matches(labels.Set(of))
}

// The ports are those of the configuration; nobody writes them twice.
func TestNetworkPolicyFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	ports := func(set map[string]any) (found []int) {
		rules := one[*networking.NetworkPolicy](t, objects(t, install(t, set))).Spec.Egress
		for _, port := range rules[1].Ports {
			found = append(found, port.Port.IntValue())
		}
		return found
	}
	if got, want := ports(values(t, "defaults.yaml")), []int{5432, 8089, 9092}; !slices.Equal(got, want) {
		t.Errorf("pods may reach %v, want %v", got, want)
	}
	if got, want := ports(values(t, "everything.yaml")), []int{443, 5432, 8025, 9093, 9094}; !slices.Equal(got, want) {
		t.Errorf("pods may reach %v, want %v", got, want)
	}
	set := values(t, "minimal.yaml")
	change(set, true, "networkPolicy", "enabled")
	if got, want := ports(set), []int{9093}; !slices.Equal(got, want) {
		t.Errorf("pods without a ledger may reach %v, want %v", got, want)
	}
	change(set, []any{19092}, "networkPolicy", "kafkaPorts")
	if got, want := ports(set), []int{19092}; !slices.Equal(got, want) {
		t.Errorf("pods may reach %v, want the ports given, %v", got, want)
	}
}

// change sets one value of a set, at its path.
func change(set map[string]any, value any, path ...string) {
	for ; len(path) > 1; path = path[1:] {
		below, is := set[path[0]].(map[string]any)
		if !is {
			below = map[string]any{}
			set[path[0]] = below
		}
		set = below
	}
	set[path[0]] = value
}
