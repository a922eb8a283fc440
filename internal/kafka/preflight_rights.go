package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rights is what the engine does with a topic of this role, see ledgerRights for the ledger. Describe
// comes with each of them.
func (r Role) rights() []kmsg.ACLOperation {
	switch r {
	case RoleInput:
		return []kmsg.ACLOperation{kmsg.ACLOperationRead}
	case RoleOutput, RoleEffects, RoleDeadLetter:
		return []kmsg.ACLOperation{kmsg.ACLOperationWrite}
	case RoleControl:
		return []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite}
	case RoleResults, RoleProgress:
		return []kmsg.ACLOperation{kmsg.ACLOperationDescribe}
	default:
		return []kmsg.ACLOperation{kmsg.ACLOperationDescribe}
	}
}

// ledgerRights is what the ledger does with a topic of this role.
func (r Role) ledgerRights() []kmsg.ACLOperation {
	switch r {
	case RoleEffects:
		return []kmsg.ACLOperation{kmsg.ACLOperationRead}
	case RoleResults, RoleProgress:
		return []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite}
	case RoleInput, RoleOutput, RoleDeadLetter, RoleControl:
		return nil
	default:
		return nil
	}
}

// checkRights asks the brokers what we may do, and where they do not tell, tries something
// harmless that needs the same right.
func (p *preflight) checkRights(ctx context.Context) error {
	for _, topic := range p.topics {
		p.checkTopicRights(topic)
	}
	var errs []error
	for _, group := range []string{p.spec.Group, p.spec.LedgerGroup} {
		if group != "" {
			errs = append(errs, p.checkGroupRights(ctx, group))
		}
	}
	for _, id := range p.spec.TransactionalIDs {
		forbidden, err := p.checkTransactionalRights(ctx, id)
		errs = append(errs, err)
		if forbidden || err != nil {
			break // one stands for all: they have one prefix
		}
	}
	return errors.Join(errs...)
}

func (p *preflight) checkTopicRights(topic Topic) {
	seen := p.seen[topic.Name]
	if seen == nil {
		return
	}
	var missing []kmsg.ACLOperation
	hidden := errors.Is(seen.err, kerr.TopicAuthorizationFailed)
	needed := p.spec.operations(topic)
	if hidden && topic.Role != RoleInput {
		needed = append(needed, kmsg.ACLOperationDescribeConfigs) // checkSettings could not even ask
	}
	for _, operation := range needed {
		if hidden || (seen.err == nil && !seen.allowed(operation)) {
			missing = append(missing, operation)
		}
	}
	if len(missing) == 0 {
		return
	}
	names := make([]string, len(missing))
	for i, operation := range missing {
		names[i] = operationName(operation)
	}
	p.report(CheckRights, Problem,
		fmt.Sprintf("%s topic %s: no right to %s", topic.Role, topic.Name, strings.Join(names, ", ")),
		p.acls.topic(topic.Name, missing...))
}

// checkGroupRights sends a heartbeat of a member that does not exist: the broker looks at the
// rights first, then refuses the member. A group's authorized operations are told only for groups
// that exist.
func (p *preflight) checkGroupRights(ctx context.Context, group string) error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group = group
	req.MemberID = "pawl-preflight"
	req.Generation = 0
	resp, err := req.RequestWith(ctx, p.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.GroupIDNotFound),
		errors.Is(err, kerr.IllegalGeneration), err == nil:
		return nil
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		p.report(CheckRights, Problem,
			fmt.Sprintf("consumer group %s: no right to Read", group),
			p.acls.group(group, kmsg.ACLOperationRead))
		return nil
	case errors.Is(err, kerr.CoordinatorNotAvailable):
		p.report(CheckRights, Problem,
			"no group coordinator: the topic __consumer_offsets is offline or could not be created",
			"start the brokers that hold it, or set offsets.topic.replication.factor to at most the number of brokers")
		return nil
	default:
		return fmt.Errorf("ask for group %s: %w", group, err)
	}
}

// checkTransactionalRights ends a transaction of a producer id that nobody can have: the broker
// looks at the rights first, then refuses the producer id. To begin one instead would fence a
// living instance.
func (p *preflight) checkTransactionalRights(ctx context.Context, id string) (forbidden bool, err error) {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID = id
	req.ProducerID = math.MaxInt64
	req.ProducerEpoch = 0
	req.Commit = false
	resp, err := req.RequestWith(ctx, p.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.InvalidProducerIDMapping), errors.Is(err, kerr.InvalidProducerEpoch),
		errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidTxnState),
		errors.Is(err, kerr.ConcurrentTransactions), err == nil:
		return false, nil
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		p.report(CheckRights, Problem,
			fmt.Sprintf("transactional id %s: no right to Write", id),
			p.acls.transactionalIDs(p.spec.Application, kmsg.ACLOperationWrite))
		return true, nil
	case errors.Is(err, kerr.CoordinatorNotAvailable):
		p.report(CheckRights, Problem,
			"no transaction coordinator: the topic __transaction_state is offline or could not be created",
			"start the brokers that hold it, or set transaction.state.log.replication.factor to at most the number of brokers")
		return true, nil
	default:
		return false, fmt.Errorf("ask for transactional id %s: %w", id, err)
	}
}

// checkOffsets compares committed offsets with the topics they were committed for. It does not
// wait for stable offsets: a predecessor's open transaction must not hold the preflight up.
func (p *preflight) checkOffsets(ctx context.Context) error {
	var inputs []string
	for _, topic := range p.topics {
		if p.spec.reads(topic) && p.exists(topic.Name) {
			inputs = append(inputs, topic.Name)
		}
	}
	if len(inputs) == 0 {
		return nil
	}
	admin := kadm.NewClient(p.client)
	offsets, err := fetchOffsets(ctx, admin, p.spec.Group, inputs)
	if errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) {
		return nil // checkRights has it
	}
	if err != nil {
		return err
	}
	starts, startsErr := admin.ListStartOffsets(ctx, inputs...)
	ends, endsErr := admin.ListEndOffsets(ctx, inputs...)
	if err := errors.Join(startsErr, endsErr); err != nil {
		// The service itself finds out, partition by partition, once a leader is there.
		p.report(CheckOffsets, Degraded, fmt.Sprintf("the bounds of the inputs' logs could not be read: %v", err), "look for partitions without a leader")
	}
	for _, topic := range inputs {
		p.checkTopicOffsets(topic, offsets[topic], starts[topic], ends[topic])
	}
	return nil
}

func (p *preflight) checkTopicOffsets(topic string, committed map[int32]committedOffset, starts, ends map[int32]kadm.ListedOffset) {
	var recreated, trimmed, beyond []int32
	for partition, offset := range committed {
		if p.spec.ParseMetadata != nil {
			if id, ok := p.spec.ParseMetadata(offset.metadata); ok && id != p.seen[topic].id {
				recreated = append(recreated, partition)
				continue
			}
		}
		if start, found := starts[partition]; found && start.Err == nil && offset.at < start.Offset {
			trimmed = append(trimmed, partition)
		}
		if end, found := ends[partition]; found && end.Err == nil && offset.at > end.Offset {
			beyond = append(beyond, partition)
		}
	}
	if len(recreated) > 0 {
		p.report(CheckOffsets, Problem,
			fmt.Sprintf("input topic %s was deleted and created again: the committed offsets of partitions %s belong to its predecessor", topic, partitionList(recreated)),
			fmt.Sprintf("stop all instances, then run `processor offsets set --topic %s --all-partitions --to earliest --reason WHY`, or latest", topic))
	}
	if len(trimmed) > 0 {
		p.report(CheckOffsets, Degraded,
			fmt.Sprintf("input topic %s: partitions %s will halt: the records at their committed offsets were deleted before they were read", topic, partitionList(trimmed)),
			fmt.Sprintf("stop all instances, then run `processor offsets set --topic %s --partition N --to earliest --reason WHY`", topic))
	}
	if len(beyond) > 0 {
		p.report(CheckOffsets, Degraded,
			fmt.Sprintf("input topic %s: partitions %s will halt: their committed offsets lie beyond the end of the log, which has lost records", topic, partitionList(beyond)),
			fmt.Sprintf("find out what was lost, stop all instances, then run `processor offsets set --topic %s --partition N --to latest --reason WHY`", topic))
	}
}

func partitionList(partitions []int32) string {
	slices.Sort(partitions)
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(partitions), " ", ", "), "[]")
}
