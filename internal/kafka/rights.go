package kafka

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Resource is a kind of thing that brokers keep rights for.
type Resource string

// The kinds that the service needs rights for. It needs none for the cluster.
const (
	ResourceTopic           Resource = "topic"
	ResourceGroup           Resource = "group"
	ResourceTransactionalID Resource = "transactional-id"
)

// Right is one row of what brokers that deny by default must allow. Describe comes with Read and with Write.
type Right struct {
	Resource   Resource `json:"resource"`
	Name       string   `json:"name"`
	Prefixed   bool     `json:"prefixed,omitempty"` // for every name that begins so
	Operations []string `json:"operations"`
	Why        string   `json:"why"`
	Command    string   `json:"command"` // of Kafka, gives the right
}

// Rights lists what the service needs to be allowed, and nothing beyond. The preflight asks for the same.
func Rights(conf Config, spec Spec) []Right {
	var rights []Right
	commands := acls{conf: conf}
	add := func(resource Resource, name, why string, operations ...kmsg.ACLOperation) {
		right := Right{Resource: resource, Name: name, Why: why}
		for _, operation := range operations {
			right.Operations = append(right.Operations, operationName(operation))
		}
		switch resource {
		case ResourceTopic:
			right.Command = commands.topic(name, operations...)
		case ResourceGroup:
			right.Command = commands.group(name, operations...)
		case ResourceTransactionalID:
			right.Prefixed = true
			right.Command = commands.transactionalIDs(spec.Application, operations...)
		}
		right.Command = strings.Trim(strings.TrimPrefix(right.Command, "run "), "`")
		rights = append(rights, right)
	}
	for _, topic := range ownFirst(spec.Topics) {
		operations := spec.operations(topic)
		if topic.Role != RoleInput {
			operations = append(operations, kmsg.ACLOperationDescribeConfigs)
		}
		add(ResourceTopic, topic.Name, spec.why(topic), operations...)
	}
	if spec.Group != "" {
		add(ResourceGroup, spec.Group, "partitions of the inputs, and their offsets", kmsg.ACLOperationRead)
	}
	if spec.LedgerGroup != "" {
		add(ResourceGroup, spec.LedgerGroup, "lanes of the effects topic", kmsg.ACLOperationRead)
	}
	if len(spec.TransactionalIDs) > 0 {
		add(ResourceTransactionalID, spec.Application+".", "each instance and lane has its own", kmsg.ACLOperationWrite)
	}
	return rights
}

// reads tells whether the service reads the topic as an input.
func (s Spec) reads(topic Topic) bool {
	return topic.Role == RoleInput || slices.Contains(s.Inputs, topic.Name)
}

// operations is what the service does with a topic.
func (s Spec) operations(topic Topic) []kmsg.ACLOperation {
	needed := topic.Role.rights()
	if s.LedgerGroup != "" {
		needed = append(needed, topic.Role.ledgerRights()...)
	}
	if s.reads(topic) && !slices.Contains(needed, kmsg.ACLOperationRead) {
		needed = append(needed, kmsg.ACLOperationRead)
	}
	if len(needed) > 1 { // Describe comes with the others
		needed = slices.DeleteFunc(needed, func(operation kmsg.ACLOperation) bool { return operation == kmsg.ACLOperationDescribe })
	}
	return needed
}

// why says what the service does with a topic.
func (s Spec) why(topic Topic) string {
	ledger := s.LedgerGroup != ""
	switch topic.Role {
	case RoleInput:
		return "records come from here"
	case RoleOutput:
		return "handlers write to it"
	case RoleDeadLetter:
		return "rejected records go there"
	case RoleControl:
		return "pauses and suspected records"
	case RoleEffects:
		if ledger {
			return "effects on their way into the ledger"
		}
		return "handlers' effects go there"
	case RoleResults:
		if ledger {
			return "what became of effects, told by the relay"
		}
		return "must be there"
	case RoleProgress:
		if ledger {
			return "how far the relay has told"
		}
		return "must be there"
	default:
		return "must be there"
	}
}
