package txn

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// roster tells who is in the group: the member id of every static member, by its name. A group that is not there has
// none.
func (c Config) roster(ctx context.Context, plain *kgo.Client) (map[string]string, error) {
	roster := map[string]string{}
	add := func(instance *string, member string) {
		if instance != nil {
			roster[*instance] = member
		}
	}
	if c.Protocol == ProtocolConsumer {
		members, err := membersOf(ctx, plain, c.Group)
		if err != nil {
			return nil, err
		}
		for _, member := range members {
			add(member.InstanceID, member.MemberID)
		}
		return roster, nil
	}
	described, err := kadm.NewClient(plain).DescribeGroups(ctx, c.Group)
	if err == nil {
		err = described[c.Group].Err
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("describe group %s: %w", c.Group, err)
	}
	for _, member := range described[c.Group].Members {
		add(member.InstanceID, member.MemberID)
	}
	return roster, nil
}

// membersOf asks for the members of a group of the consumer protocol (KIP-848). A group that is not there has none.
func membersOf(ctx context.Context, plain *kgo.Client, group string) ([]kmsg.ConsumerGroupDescribeResponseGroupMember, error) {
	ask := kmsg.NewPtrConsumerGroupDescribeRequest()
	ask.Groups = []string{group}
	described, err := ask.RequestWith(ctx, plain)
	if err != nil {
		return nil, fmt.Errorf("describe group %s: %w", group, err)
	}
	var members []kmsg.ConsumerGroupDescribeResponseGroupMember
	for _, one := range described.Groups {
		if err := kerr.ErrorForCode(one.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("describe group %s: %w", group, err)
		}
		members = append(members, one.Members...)
	}
	return members, nil
}
