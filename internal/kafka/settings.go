package kafka

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	settingCleanup   = "cleanup.policy"
	settingRetention = "retention.ms"
	settingInSyncMin = "min.insync.replicas"
	settingUnclean   = "unclean.leader.election.enable"
)

// forced is what a topic's role demands of its settings, whatever the configuration says: an
// effects topic that is compacted loses calls, a control or progress topic that is not forgets.
func (r Role) forced() map[string]string {
	switch r {
	case RoleEffects:
		return map[string]string{settingCleanup: "delete"}
	case RoleProgress, RoleControl:
		return map[string]string{settingCleanup: "compact"}
	case RoleInput, RoleOutput, RoleResults, RoleDeadLetter:
		return nil
	default:
		return nil
	}
}

// keepsPartitions tells whether more partitions would break what the topic is for: the order of
// calls, or a key's place in a compacted topic.
func (r Role) keepsPartitions() bool {
	return r == RoleEffects || r == RoleProgress || r == RoleControl
}

// wantedSettings is the configuration's settings with the role's own over them.
func (t Topic) wantedSettings() map[string]string {
	settings := maps.Clone(t.Settings)
	if settings == nil {
		settings = make(map[string]string)
	}
	maps.Copy(settings, t.Role.forced())
	return settings
}

// Validate reports settings that contradict the topic's role.
func (t Topic) Validate() error {
	for name, value := range t.Role.forced() {
		if set, found := t.Settings[name]; found && !sameSetting(name, set, value) {
			return fmt.Errorf("topic %s: %s is %q, but a topic with the role %s needs %q", t.Name, name, set, t.Role, value)
		}
	}
	return nil
}

// SettingChange is one setting that is not as it is wanted.
type SettingChange struct {
	Name string `json:"name"`
	Have string `json:"have,omitempty"` // the effective value; empty for a new topic
	Want string `json:"want"`
}

// settingChanges compares, by name.
func settingChanges(want map[string]string, have map[string]setting) []SettingChange {
	var changes []SettingChange
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !sameSetting(name, want[name], have[name].text) {
			changes = append(changes, SettingChange{Name: name, Have: have[name].text, Want: want[name]})
		}
	}
	return changes
}

// sameSetting knows that lists have no order and that numbers may be spelled in several ways.
func sameSetting(name, a, b string) bool {
	a, b = strings.TrimSpace(a), strings.TrimSpace(b)
	if a == b {
		return true
	}
	if name == settingCleanup {
		return slices.Equal(listSetting(a), listSetting(b))
	}
	numberA, errA := strconv.ParseFloat(a, 64)
	numberB, errB := strconv.ParseFloat(b, 64)
	return errA == nil && errB == nil && numberA == numberB
}

func listSetting(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	slices.Sort(items)
	return slices.Compact(items)
}
