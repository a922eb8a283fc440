package pause

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Target is what is paused, by the name that it has everywhere: on the command line, in the operations
// HTTP, in metrics and as a key of the control topic.
//
//	input              all input
//	input/TOPIC        an input topic
//	input/TOPIC/3      a partition of it
//	endpoint/NAME      an endpoint of effects
type Target string

// AllInput is the widest target. Endpoints are not below it.
const AllInput Target = "input"

const (
	inputPrefix    = "input/"
	endpointPrefix = "endpoint/"
)

// Topic names an input topic.
func Topic(topic string) Target { return Target(inputPrefix + topic) }

// Partition names a partition of an input topic.
func Partition(topic string, partition int32) Target {
	return Target(inputPrefix + topic + "/" + strconv.Itoa(int(partition)))
}

// Endpoint names an endpoint.
func Endpoint(name string) Target { return Target(endpointPrefix + name) }

// nameForm is what Kafka allows in the name of a topic; endpoints fit it too.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

var errTarget = errors.New("want input, input/TOPIC, input/TOPIC/PARTITION or endpoint/NAME")

// ParseTarget reads a name that somebody typed, or that stands in the control topic.
func ParseTarget(text string) (Target, error) {
	bad := func() (Target, error) { return "", fmt.Errorf("target is %q, %w", text, errTarget) }
	if Target(text) == AllInput {
		return AllInput, nil
	}
	if name, is := strings.CutPrefix(text, endpointPrefix); is {
		if !nameForm.MatchString(name) {
			return bad()
		}
		return Endpoint(name), nil
	}
	rest, is := strings.CutPrefix(text, inputPrefix)
	topic, number, one := strings.Cut(rest, "/")
	if !is || !nameForm.MatchString(topic) {
		return bad()
	}
	if !one {
		return Topic(topic), nil
	}
	partition, err := strconv.ParseInt(number, 10, 32)
	if err != nil || partition < 0 || strconv.FormatInt(partition, 10) != number { // one name each: not 03, not +3
		return bad()
	}
	return Partition(topic, int32(partition)), nil
}

// Endpoint gives the endpoint's name; is says whether the target is one.
func (t Target) Endpoint() (name string, is bool) {
	return strings.CutPrefix(string(t), endpointPrefix)
}

// Input gives the topic, empty where it is all input, and the partition, -1 where it is all of them.
// is says whether the target is input.
func (t Target) Input() (topic string, partition int32, is bool) {
	if t == AllInput {
		return "", -1, true
	}
	rest, is := strings.CutPrefix(string(t), inputPrefix)
	if !is {
		return "", -1, false
	}
	topic, number, one := strings.Cut(rest, "/")
	if !one {
		return topic, -1, true
	}
	parsed, _ := strconv.ParseInt(number, 10, 32) // a Target was made by a function of this file
	return topic, int32(parsed), true
}

// Wider lists what lies around the target: its topic, all input.
func (t Target) Wider() []Target {
	topic, partition, is := t.Input()
	switch {
	case !is || t == AllInput:
		return nil
	case partition < 0:
		return []Target{AllInput}
	default:
		return []Target{Topic(topic), AllInput}
	}
}

// compare orders targets as a person would: input before endpoints, partitions by number.
func compare(a, b Target) int {
	topicA, partitionA, inputA := a.Input()
	topicB, partitionB, inputB := b.Input()
	switch {
	case inputA && inputB:
		return cmp.Or(cmp.Compare(topicA, topicB), cmp.Compare(partitionA, partitionB))
	case inputA:
		return -1
	case inputB:
		return 1
	default:
		return cmp.Compare(a, b)
	}
}
