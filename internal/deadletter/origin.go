package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Cause says why a dead letter cannot be redriven; a closed set.
type Cause string

// The causes of refusals.
const (
	CauseUnreadable   Cause = "unreadable"    // no engine wrote it
	CauseTooOften     Cause = "too_often"     // it has been redriven as often as is allowed
	CauseGone         Cause = "gone"          // its topic or partition of origin does not exist
	CauseRecreated    Cause = "recreated"     // its topic of origin is another one of the same name
	CauseDenied       Cause = "denied"        // the topic of origin may not be written or described
	CauseExpired      Cause = "expired"       // its topic of origin would delete it for its age
	CauseTooLarge     Cause = "too_large"     // larger than its topic of origin takes
	CauseBrokerReject Cause = "broker_reject" // the broker refuses the record, for a reason of its own
)

// Refusal is a dead letter that could not be redriven. It is left as it was.
type Refusal struct {
	Letter Position
	Cause  Cause
	Err    error // what is wrong and what to do
}

func refuse(l *Letter, cause Cause, format string, args ...any) *Refusal {
	return &Refusal{Letter: l.Position(), Cause: cause, Err: fmt.Errorf(format, args...)}
}

// origin is what has to be known about a topic that letters go back to.
type origin struct {
	topic      kadm.TopicDetail
	bytesMax   int           // max.message.bytes
	retention  time.Duration // by CreateTime; 0 is for ever
	configsErr error         // the settings are not known
}

// origins are the topics of origin of one run.
type origins struct {
	mu    sync.Mutex // batchBytesMax is called by the client's goroutines
	known map[string]*origin
}

// batchBytesMaxDefault is a broker's message.max.bytes where nobody has changed it.
const batchBytesMaxDefault = 1_048_588

func (o *origins) batchBytesMax(topic string) int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.known[topic]; known != nil {
		return int32(min(max(known.bytesMax, 512), 1<<30))
	}
	return batchBytesMaxDefault
}

// forget makes the next question ask the brokers again.
func (o *origins) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.known)
}

func (q *Queue) origin(ctx context.Context, o *origins, topic string) (*origin, error) {
	o.mu.Lock()
	known := o.known[topic]
	o.mu.Unlock()
	if known != nil {
		return known, nil
	}
	topics, err := q.admin.ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("describe topic of origin %s: %w", topic, err)
	}
	known = &origin{topic: topics[topic], bytesMax: batchBytesMaxDefault}
	if known.topic.Err == nil {
		known.configsErr = q.readSettings(ctx, known)
	}
	o.mu.Lock()
	o.known[topic] = known
	o.mu.Unlock()
	return known, nil
}

// readSettings fills in what bounds size and age. Not to be allowed to see them is no reason to
// refuse: the broker has the last word anyway.
func (q *Queue) readSettings(ctx context.Context, o *origin) error {
	all, err := q.admin.DescribeTopicConfigs(ctx, o.topic.Topic)
	if err != nil {
		return err
	}
	resource, err := all.On(o.topic.Topic, nil)
	if err != nil {
		return err
	}
	if resource.Err != nil {
		return resource.Err
	}
	settings := make(map[string]string)
	for _, config := range resource.Configs {
		if config.Value != nil {
			settings[config.Key] = *config.Value
		}
	}
	if bytes, err := strconv.Atoi(settings["max.message.bytes"]); err == nil {
		o.bytesMax = bytes
	}
	retention, err := strconv.ParseInt(settings["retention.ms"], 10, 64)
	byTime := strings.Contains(settings["cleanup.policy"], "delete") && settings["message.timestamp.type"] != "LogAppendTime"
	if err == nil && retention > 0 && byTime {
		o.retention = time.Duration(min(retention, int64(retentionMax/time.Millisecond))) * time.Millisecond
	}
	return nil
}

const (
	retentionMax = 100 * 365 * 24 * time.Hour
	// A redriven record must not be deleted before it is read: this part of the retention is kept
	// for that, an hour at most.
	retentionSlackPart = 10
	retentionSlackMax  = time.Hour
)

// generationsMax bounds the search for the replay generation a letter was written in.
const generationsMax = 1000

// deadLetterIndex is the index that the engine gives dead letters among what it makes of an input.
const deadLetterIndex = -1

// check refuses a letter that must not or cannot go back; nil lets it go. record is what would be
// written.
func (q *Queue) check(ctx context.Context, o *origins, l *Letter, record *kgo.Record, options *RedriveOptions) (*Refusal, error) {
	if l.Unreadable != nil {
		return refuse(l, CauseUnreadable, "%w; look at it with `processor dlq show %s` and discard it", l.Unreadable, l.Position()), nil //nolint:nilerr // the refusal tells it
	}
	if l.Redrives >= options.RedrivesMax {
		return refuse(l, CauseTooOften, "it has been redriven %d times and refused each time: mend the handler or the data first, then raise --max-redrives", l.Redrives), nil
	}
	at, err := q.origin(ctx, o, l.Source.Topic)
	if err != nil {
		return nil, err
	}
	_, exists := at.topic.Partitions[l.Source.Partition]
	switch err := at.topic.Err; {
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.InvalidTopicException):
		return refuse(l, CauseGone, "its topic of origin, %s, does not exist: create it again, or save the letter with `processor dlq show --raw %s` and discard it: %w", l.Source.Topic, l.Position(), err), nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return refuse(l, CauseDenied, "this user lacks the rights Describe and Write on its topic of origin, %s: %w", l.Source.Topic, err), nil
	case err != nil:
		return nil, fmt.Errorf("describe topic of origin %s: %w", l.Source.Topic, err)
	case !options.Recreated && !q.sameTopic(l, at.topic.ID):
		return refuse(l, CauseRecreated, "its topic of origin, %s, has been deleted and created again since, or it was refused by another application: --recreated writes it to the topic that has the name now", l.Source.Topic), nil
	case !exists:
		return refuse(l, CauseGone, "partition %d of its topic of origin, %s, does not exist: add partitions, or save the letter with `processor dlq show --raw %s` and discard it", l.Source.Partition, l.Source.Topic, l.Position()), nil
	case size(record) > at.bytesMax && at.configsErr == nil:
		return refuse(l, CauseTooLarge, "it needs %d bytes and max.message.bytes of %s is %d: raise that", size(record), l.Source.Topic, at.bytesMax), nil
	}
	slack := min(at.retention/retentionSlackPart, retentionSlackMax)
	if age := time.Since(l.Timestamp); at.retention > 0 && !options.Restamp && age > at.retention-slack {
		return refuse(l, CauseExpired, "it is %s old and %s deletes what is older than %s: --restamp gives it the time of the redrive, or raise retention.ms", age.Round(time.Second), l.Source.Topic, at.retention), nil
	}
	return nil, nil
}

// sameTopic tells the topic the letter came from, from another one of its name: the letter's id was
// derived from the topic id, so deriving it again from the topic that is there now must give it.
func (q *Queue) sameTopic(l *Letter, topicID kadm.TopicID) bool {
	source := l.Source
	source.Application, source.TopicID = q.config.Application, topicID
	for generation := q.config.ReplayGeneration; generation >= max(0, q.config.ReplayGeneration-generationsMax); generation-- {
		source.ReplayGeneration = generation
		if source.ID(deadLetterIndex).String() == l.ID {
			return true
		}
	}
	return false
}

// judgeProduce maps the broker's refusal of one record to a cause. ok is false for an error that is
// not the record's or its topic's.
func judgeProduce(err error) (cause Cause, ok bool) {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return CauseTooLarge, true
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return CauseDenied, true
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		return CauseGone, true
	case errors.Is(err, kerr.InvalidTimestamp), errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.PolicyViolation):
		return CauseBrokerReject, true
	default:
		return "", false
	}
}
