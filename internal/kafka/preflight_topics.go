package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// checkTopics finds topics that are missing. What is forbidden is for checkRights to report.
func (p *preflight) checkTopics(ctx context.Context) error {
	names := make([]string, len(p.topics))
	for i, topic := range p.topics {
		names[i] = topic.Name
	}
	var err error
	if p.seen, err = requestTopics(ctx, p.client, names...); err != nil {
		return err
	}
	var own []string
	for _, topic := range p.topics {
		switch seen := p.seen[topic.Name]; {
		case seen.err == nil, errors.Is(seen.err, kerr.TopicAuthorizationFailed):
		case errors.Is(seen.err, kerr.UnknownTopicOrPartition) && topic.Role == RoleInput:
			p.report(CheckTopics, Problem,
				fmt.Sprintf("input topic %s does not exist%s", topic.Name, p.suggest(ctx, topic.Name)),
				"correct routes.topics, or create it with `processor topics apply --create-inputs PARTITIONS`")
		case errors.Is(seen.err, kerr.UnknownTopicOrPartition):
			own = append(own, topic.Name)
		case errors.Is(seen.err, kerr.InvalidTopicException):
			p.report(CheckTopics, Problem,
				fmt.Sprintf("%q cannot be the name of a topic", topic.Name),
				"use letters, digits, dots, dashes and underscores, at most 249 of them")
		default:
			p.report(CheckTopics, Degraded,
				fmt.Sprintf("topic %s: %v", topic.Name, seen.err),
				"wait for the brokers to elect a leader; if it persists, look at their logs")
		}
	}
	if len(own) > 0 {
		p.report(CheckTopics, Problem, "missing: "+strings.Join(own, ", "), "run `processor topics apply`")
	}
	return nil
}

// suggest looks for a topic that may have been meant. It is a courtesy: its failure is no finding.
func (p *preflight) suggest(ctx context.Context, name string) string {
	names, err := TopicNames(ctx, p.client)
	if err != nil {
		return ""
	}
	if near := nearest(name, names); near != "" {
		return "; there is one named " + near
	}
	return ""
}

// checkSettings compares settings and partition counts of the service's own topics.
func (p *preflight) checkSettings(ctx context.Context) error {
	var resources []kmsg.DescribeConfigsRequestResource
	for _, topic := range p.topics {
		if p.exists(topic.Name) {
			resources = append(resources, topicResource(topic.Name))
		}
	}
	configs, err := requestConfigs(ctx, p.client, resources...)
	if err != nil {
		return err
	}
	for _, topic := range p.topics {
		if !p.exists(topic.Name) {
			continue
		}
		have := configs[topic.Name]
		p.checkPartitions(topic)
		switch {
		case errors.Is(have.err, kerr.TopicAuthorizationFailed):
			p.forbiddenSettings(topic)
		case have.err != nil:
			p.report(CheckSettings, Degraded, fmt.Sprintf("settings of topic %s: %v", topic.Name, have.err), "run `processor check --connect` again")
		default:
			p.checkTopicSettings(topic, have)
			p.checkDurability(topic, have)
		}
	}
	return nil
}

func (p *preflight) checkPartitions(topic Topic) {
	have := len(p.seen[topic.Name].partitions)
	switch {
	case topic.Role == RoleInput || topic.Partitions <= 0 || have == int(topic.Partitions):
	case topic.Role == RoleEffects:
		p.report(CheckSettings, Problem,
			fmt.Sprintf("effects topic %s has %d partitions, but effects.lanes is %d; the number is fixed for life, because the order of calls hangs on it", topic.Name, have, topic.Partitions),
			fmt.Sprintf("set effects.lanes to %d", have))
	default:
		p.report(CheckSettings, Degraded,
			fmt.Sprintf("topic %s has %d partitions, configured are %d", topic.Name, have, topic.Partitions),
			"run `processor topics plan`, or correct the configuration")
	}
}

// forbiddenSettings is for settings that we may not see. Where a wrong one would lose records,
// not knowing is as bad.
func (p *preflight) forbiddenSettings(topic Topic) {
	status := Degraded
	if topic.Role.forced() != nil {
		status = Problem
	} else if topic.Role == RoleInput {
		return // not ours to judge
	}
	detail := fmt.Sprintf("settings of topic %s are hidden from us", topic.Name)
	if slices.Contains(topic.Role.rights(), kmsg.ACLOperationWrite) {
		detail += ", so that its largest record is taken to be Kafka's default of 1 MiB"
	}
	p.report(CheckSettings, status, detail,
		p.acls.topic(topic.Name, kmsg.ACLOperationDescribeConfigs))
}

func (p *preflight) checkTopicSettings(topic Topic, have config) {
	if topic.Role == RoleInput {
		return
	}
	for _, change := range settingChanges(topic.wantedSettings(), have.values) {
		status, why := Degraded, ""
		_, forced := topic.Role.forced()[change.Name]
		switch {
		case forced && topic.Role == RoleEffects:
			status, why = Problem, ": compaction would lose effects that are not ingested yet"
		case forced:
			status, why = Problem, ": without compaction alone, what it keeps is deleted with time"
		case topic.Role == RoleEffects && change.Name == settingRetention && longer(change.Have, change.Want):
			continue // longer than configured does no harm
		case topic.Role == RoleEffects:
			status, why = Problem, ": effects may be lost before they are ingested, or before a restored ledger reads them again"
		}
		p.report(CheckSettings, status,
			fmt.Sprintf("topic %s: %s is %q, want %q%s", topic.Name, change.Name, change.Have, change.Want, why),
			"run `processor topics plan`, then `processor topics apply`")
	}
}

// longer compares retention times, of which -1 is the longest.
func longer(have, want string) bool {
	if strings.TrimSpace(have) == "-1" {
		return true
	}
	if strings.TrimSpace(want) == "-1" {
		return false
	}
	haveMillis, haveErr := strconv.ParseInt(strings.TrimSpace(have), 10, 64)
	wantMillis, wantErr := strconv.ParseInt(strings.TrimSpace(want), 10, 64)
	return haveErr == nil && wantErr == nil && haveMillis >= wantMillis
}

// checkDurability looks at settings that stop writes, or let the cluster lose what it has
// acknowledged; checkReplication reports the latter for all topics together.
func (p *preflight) checkDurability(topic Topic, have config) {
	seen := p.seen[topic.Name]
	inSyncMin, err := strconv.Atoi(have.values[settingInSyncMin].text)
	if err == nil && inSyncMin > seen.replicas() && seen.replicas() > 0 {
		p.report(CheckReplication, Problem,
			fmt.Sprintf("topic %s: %s is %d, but it has %d replicas: no write can succeed", topic.Name, settingInSyncMin, inSyncMin, seen.replicas()),
			"lower min.insync.replicas or add replicas")
	} else if err == nil && inSyncMin == 1 && seen.replicas() > 1 {
		p.weak = append(p.weak, topic.Name)
	}
	if have.values[settingUnclean].text == "true" {
		p.unclean = append(p.unclean, topic.Name)
	}
}

// checkReplication looks at replicas, which even a principal without DescribeConfigs may see.
func (p *preflight) checkReplication(context.Context) error {
	var single, offline, behind []string
	for _, topic := range p.topics {
		if !p.exists(topic.Name) {
			continue
		}
		seen := p.seen[topic.Name]
		if seen.replicas() == 1 && p.nodes > 1 {
			single = append(single, topic.Name)
		}
		if slices.ContainsFunc(seen.partitions, func(s seenPartition) bool { return s.leader < 0 }) {
			offline = append(offline, topic.Name)
		} else if slices.ContainsFunc(seen.partitions, func(s seenPartition) bool { return s.inSync < s.replicas }) {
			behind = append(behind, topic.Name)
		}
	}
	if len(single) > 0 {
		p.report(CheckReplication, Degraded,
			fmt.Sprintf("one replica only, on a cluster of %d brokers: %s: one lost disk loses records", p.nodes, strings.Join(single, ", ")),
			"add replicas with kafka-reassign-partitions.sh")
	}
	if len(p.weak) > 0 {
		p.report(CheckReplication, Degraded,
			settingInSyncMin+" is 1: "+strings.Join(p.weak, ", ")+": an acknowledged record may exist on one broker only",
			"set min.insync.replicas to 2 in the topics' settings or on the brokers")
	}
	if len(p.unclean) > 0 {
		p.report(CheckReplication, Degraded,
			settingUnclean+" is true: "+strings.Join(p.unclean, ", ")+": a broker that has fallen behind may become leader and drop committed records",
			"set unclean.leader.election.enable to false")
	}
	if len(offline) > 0 {
		p.report(CheckReplication, Degraded,
			"partitions without a leader: "+strings.Join(offline, ", "),
			"start the brokers that hold them")
	}
	if len(behind) > 0 {
		p.report(CheckReplication, Degraded,
			"replicas out of sync: "+strings.Join(behind, ", "),
			"look for a broker that is down or slow")
	}
	return nil
}

func (p *preflight) exists(name string) bool {
	seen := p.seen[name]
	return seen != nil && seen.err == nil
}

// nearest finds the name that is within two changes of what was typed, or that contains it, or
// returns "".
func nearest(typed string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if d := editDistance(strings.ToLower(typed), strings.ToLower(name), distance); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance counts the changes that make b of a (Levenshtein), or returns limit if there are at
// least that many.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return min(row[len(b)], limit)
}
