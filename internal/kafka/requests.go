package kafka

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// The requests of this file are made without kadm because that gives up on a whole answer when one
// topic of it is forbidden, and what is forbidden is what a preflight is after.

// transactionVersionMin is the finalised feature level that turns KIP-890 part 2 on.
const transactionVersionMin = 2

// seenTopic is a topic as the brokers describe it.
type seenTopic struct {
	err        error // of the topic as a whole, such as kerr.UnknownTopicOrPartition
	id         [16]byte
	partitions []seenPartition // by number
	operations int32           // bits by kmsg.ACLOperation
}

type seenPartition struct {
	leader   int32 // -1 without one
	replicas int
	inSync   int
}

// allowed tells whether an operation is ours; without word from the broker it is presumed.
func (t *seenTopic) allowed(operation kmsg.ACLOperation) bool {
	return t.operations == math.MinInt32 || t.operations&(1<<int32(operation)) != 0
}

func (t *seenTopic) replicas() int {
	if len(t.partitions) == 0 {
		return 0
	}
	least := math.MaxInt
	for _, partition := range t.partitions {
		least = min(least, partition.replicas)
	}
	return least
}

// requestTopics describes the named topics. Each name has an entry in the answer.
func requestTopics(ctx context.Context, client *kgo.Client, names ...string) (map[string]*seenTopic, error) {
	if len(names) == 0 {
		return map[string]*seenTopic{}, nil
	}
	req := metadataRequest(names...)
	req.IncludeTopicAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	topics := seenTopics(resp)
	for _, name := range names {
		if topics[name] == nil {
			topics[name] = &seenTopic{err: kerr.UnknownTopicOrPartition}
		}
	}
	return topics, nil
}

// metadataRequest asks about the named topics and creates none.
func metadataRequest(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	req.Topics = []kmsg.MetadataRequestTopic{} // nil would mean all
	for _, name := range names {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = new(name)
		req.Topics = append(req.Topics, topic)
	}
	return req
}

func seenTopics(resp *kmsg.MetadataResponse) map[string]*seenTopic {
	topics := make(map[string]*seenTopic, len(resp.Topics))
	for i := range resp.Topics {
		from := &resp.Topics[i]
		if from.Topic == nil {
			continue
		}
		topic := &seenTopic{
			err:        kerr.ErrorForCode(from.ErrorCode),
			id:         from.TopicID,
			operations: from.AuthorizedOperations,
		}
		slices.SortFunc(from.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int {
			return int(a.Partition) - int(b.Partition)
		})
		for _, partition := range from.Partitions {
			topic.partitions = append(topic.partitions, seenPartition{
				leader:   partition.Leader,
				replicas: len(partition.Replicas),
				inSync:   len(partition.ISR),
			})
		}
		topics[*from.Topic] = topic
	}
	return topics
}

// TopicNames lists the topics that we may see.
func TopicNames(ctx context.Context, client *kgo.Client) ([]string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var names []string
	for _, topic := range resp.Topics {
		if topic.Topic != nil && !topic.IsInternal && topic.ErrorCode == 0 {
			names = append(names, *topic.Topic)
		}
	}
	slices.Sort(names)
	return names, nil
}

func requestBrokers(ctx context.Context, client *kgo.Client) ([]kmsg.MetadataResponseBroker, error) {
	resp, err := metadataRequest().RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	slices.SortFunc(resp.Brokers, func(a, b kmsg.MetadataResponseBroker) int { return int(a.NodeID) - int(b.NodeID) })
	return resp.Brokers, nil
}

// ping makes one broker answer, under the address that it advertises.
func ping(ctx context.Context, client *kgo.Client, node int32) error {
	_, err := client.Broker(int(node)).Request(ctx, metadataRequest())
	return err
}

// versions is what a broker says of its abilities.
type versions struct {
	resp         *kmsg.ApiVersionsResponse
	transactions int16 // the finalised level of transaction.version; -1 where there is none
}

func requestVersions(ctx context.Context, client *kgo.Client) (versions, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return versions{}, fmt.Errorf("ask for versions: %w", err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return versions{}, fmt.Errorf("ask for versions: %w", err)
	}
	known := versions{resp: resp, transactions: -1}
	for _, feature := range resp.FinalizedFeatures {
		if feature.Name == "transaction.version" {
			known.transactions = feature.MaxVersionLevel
		}
	}
	return known, nil
}

// speaksTransactionsV2 asks what the client library asks before it uses KIP-890 part 2.
func (v versions) speaksTransactionsV2() bool {
	for _, want := range []struct{ key, version int16 }{
		{int16(kmsg.Produce), 12}, {int16(kmsg.EndTxn), 5}, {int16(kmsg.TxnOffsetCommit), 5},
	} {
		if !slices.ContainsFunc(v.resp.ApiKeys, func(key kmsg.ApiVersionsResponseApiKey) bool {
			return key.ApiKey == want.key && key.MaxVersion >= want.version
		}) {
			return false
		}
	}
	return true
}

// release guesses the brokers' release from the requests they know. It is a guess, for messages only.
func (v versions) release() string {
	return strings.TrimPrefix(kversion.FromApiVersionsResponse(v.resp).VersionGuess(), "v")
}

// config is the settings of one topic or broker.
type config struct {
	err    error // of this one, such as kerr.TopicAuthorizationFailed
	values map[string]setting
}

type setting struct {
	text   string
	source kmsg.ConfigSource // where the value comes from
}

func topicResource(name string) kmsg.DescribeConfigsRequestResource {
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType = kmsg.ConfigResourceTypeTopic
	resource.ResourceName = name
	return resource
}

func brokerResource(node int32) kmsg.DescribeConfigsRequestResource {
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType = kmsg.ConfigResourceTypeBroker
	resource.ResourceName = strconv.Itoa(int(node))
	return resource
}

// requestConfigs reads effective settings, by the resources' names.
func requestConfigs(ctx context.Context, client *kgo.Client, resources ...kmsg.DescribeConfigsRequestResource) (map[string]config, error) {
	configs := make(map[string]config, len(resources))
	if len(resources) == 0 {
		return configs, nil
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = resources
	for _, shard := range client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, fmt.Errorf("describe settings: %w", shard.Err)
		}
		resp, ok := shard.Resp.(*kmsg.DescribeConfigsResponse)
		if !ok {
			return nil, fmt.Errorf("describe settings: answer of type %T", shard.Resp)
		}
		for i := range resp.Resources {
			from := &resp.Resources[i]
			one := config{err: kerr.ErrorForCode(from.ErrorCode), values: make(map[string]setting, len(from.Configs))}
			for j := range from.Configs {
				if value := from.Configs[j].Value; value != nil {
					one.values[from.Configs[j].Name] = setting{text: *value, source: from.Configs[j].Source}
				}
			}
			configs[from.ResourceName] = one
		}
	}
	return configs, nil
}
