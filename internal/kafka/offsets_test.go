package kafka

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/faults"
)

func TestPositionIsReadFromText(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]Position{
		"earliest":                  {kind: atEarliest},
		"latest":                    {kind: atLatest},
		"0":                         {kind: atOffset},
		"4711":                      {kind: atOffset, offset: 4711},
		"2026-11-23T13:00:00+01:00": {kind: atTime, time: noon},
	} {
		got, err := ParsePosition(text)
		if err != nil || got.kind != want.kind || got.offset != want.offset || !got.time.Equal(want.time) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "first", "2026-11-23", "12:00", "1e3"} {
		if _, err := ParsePosition(text); err == nil {
			t.Errorf("%q was taken for a position", text)
		}
	}
}

func TestPartitionsAreReadFromText(t *testing.T) {
	t.Parallel()
	got, err := ParsePartitions("7-9, 0,3,8")
	if want := []int32{0, 3, 7, 8, 9}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, text := range []string{"", "a", "3-1", "-1", "1-", "0-99999999"} {
		if _, err := ParsePartitions(text); err == nil {
			t.Errorf("%q was taken for partitions", text)
		}
	}
}

// filled is a fake with ten records a minute apart in partition 0 of in, from first on.
func filled(t *testing.T, first time.Time) *fake {
	t.Helper()
	fake := newFake(t, kfake.SeedTopics(2, "in"), kfake.SeedTopics(1, "out")).open(t)
	opts, err := fake.conf.ProbeOptions()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 10 {
		record := &kgo.Record{Topic: "in", Value: []byte("v"), Timestamp: first.Add(time.Duration(i) * time.Minute)}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return fake
}

func TestOffsetsAreMovedWhereTheOperatorSays(t *testing.T) {
	t.Parallel()
	first := time.UnixMilli(1_700_000_000_000).UTC()
	for name, test := range map[string]struct {
		to         string
		partitions []int32
		want       []OffsetMove
		again      int64
		skipped    int64
	}{
		"earliest": {
			to: "earliest", again: 4,
			want: []OffsetMove{{Topic: "in", From: 4, To: 0, End: 10}, {Topic: "in", Partition: 1, From: NoOffset}},
		},
		"latest": {
			to: "latest", skipped: 6,
			want: []OffsetMove{{Topic: "in", From: 4, To: 10, End: 10}, {Topic: "in", Partition: 1, From: NoOffset}},
		},
		"an offset":         {to: "7", partitions: []int32{0, 0}, skipped: 3, want: []OffsetMove{{Topic: "in", From: 4, To: 7, End: 10}}},
		"a time":            {to: first.Add(90 * time.Second).Format(time.RFC3339), partitions: []int32{0}, again: 2, want: []OffsetMove{{Topic: "in", From: 4, To: 2, End: 10}}},
		"a time before all": {to: first.Add(-time.Hour).Format(time.RFC3339), partitions: []int32{0}, again: 4, want: []OffsetMove{{Topic: "in", From: 4, To: 0, End: 10}}},
		"a time after all":  {to: first.Add(time.Hour).Format(time.RFC3339), partitions: []int32{0}, skipped: 6, want: []OffsetMove{{Topic: "in", From: 4, To: 10, End: 10}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := filled(t, first)
			fake.commit(t, "in", 0, 4, "old")
			to, err := ParsePosition(test.to)
			if err != nil {
				t.Fatal(err)
			}
			moves, err := PlanOffsets(short(t), fake.client, "app", "in", test.partitions, to)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, moves, cmpopts.IgnoreUnexported(OffsetMove{})); diff != "" {
				t.Fatalf("moves (-want +got):\n%s", diff)
			}
			var again, skipped int64
			for _, move := range moves {
				again += move.Again()
				skipped += move.Skipped()
			}
			if again != test.again || skipped != test.skipped {
				t.Errorf("%d again and %d skipped, want %d and %d", again, skipped, test.again, test.skipped)
			}
			if err := SetOffsets(short(t), fake.admin, "app", moves, testMetadata); err != nil {
				t.Fatal(err)
			}
			shown, err := CommittedOffsets(short(t), fake.admin, "app", []string{"in"}, parseTestMetadata)
			if err != nil {
				t.Fatal(err)
			}
			for i, move := range moves {
				if got := shown[i]; got.Committed != move.To || got.Metadata != testMetadata(fake.TopicInfo("in").TopicID) || got.Stale {
					t.Errorf("committed %+v, want offset %d with the topic's id", got, move.To)
				}
			}
		})
	}
}

func TestOffsetsOutsideTheLogAreRefused(t *testing.T) {
	t.Parallel()
	fake := filled(t, time.UnixMilli(1_700_000_000_000))
	_, err := PlanOffsets(short(t), fake.client, "app", "in", nil, Position{kind: atOffset, offset: 11})
	failing(t, err, "offset 11 is outside of in/0, which has 0 to 10", "offset 11 is outside of in/1, which has 0 to 0")
	_, err = PlanOffsets(short(t), fake.client, "app", "in", []int32{5}, Position{kind: atEarliest})
	failing(t, err, "topic in has no partition 5, but 0 to 1")
	_, err = PlanOffsets(short(t), fake.client, "app", "nowhere", nil, Position{kind: atEarliest})
	failing(t, err, "describe topic nowhere: UNKNOWN_TOPIC_OR_PARTITION")
}

// While a member is there, its next commit would undo what was set, or the set would undo its.
func TestOffsetsOfALivingGroupAreRefused(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]kgo.Opt{
		"classic":        {kgo.InstanceID("app.one.0")},
		"dynamic":        nil,
		"server-side":    {kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer())},
		"static, gone":   {kgo.InstanceID("app.one.0")},
		"joined halfway": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := filled(t, time.UnixMilli(1_700_000_000_000))
			ctx := short(t)
			to := Position{kind: atEarliest}
			early, err := PlanOffsets(ctx, fake.client, "app", "in", nil, to)
			if err != nil {
				t.Fatal(err)
			}
			base, err := fake.conf.Options()
			if err != nil {
				t.Fatal(err)
			}
			member, err := kgo.NewClient(append(append(base, kgo.ClientID("app.one"), kgo.ConsumerGroup("app"), kgo.ConsumeTopics("in"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart())), opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer member.Close()
			if records := member.PollFetches(ctx).Records(); len(records) == 0 {
				t.Fatal("the member read nothing")
			}
			if name == "static, gone" {
				member.Close() // sends no LeaveGroup
			}
			if name == "joined halfway" {
				failing(t, SetOffsets(ctx, fake.admin, "app", early, nil), "a member has joined the group meanwhile, stop all instances")
				return
			}
			_, err = PlanOffsets(ctx, fake.client, "app", "in", nil, to)
			var live *LiveGroupError
			if !errors.As(err, &live) || len(live.Members) != 1 || live.Members[0].Client != "app.one" {
				t.Fatalf("got %+v", err)
			}
			failing(t, err, "group app is stable with 1 members", "stop all instances first")
			faults.Shows(t, "group-alive", err.Error())
			static := live.Members[0].Instance != ""
			if says := strings.Contains(err.Error(), "a static member that was stopped counts until its session times out"); says != static {
				t.Errorf("static %t: %v", static, err)
			}
		})
	}
}

// An open transaction of a dead lane would commit its offsets over those that were set.
func TestOffsetsInAnOpenTransactionAreRefused(t *testing.T) {
	t.Parallel()
	fake := filled(t, time.UnixMilli(1_700_000_000_000))
	fake.commit(t, "in", 0, 2, "")
	producer := pending(t, fake, "app.one.0", 5)
	_, err := PlanOffsets(short(t), fake.client, "app", "in", nil, Position{kind: atEarliest})
	if _, ok := errors.AsType[*PendingOffsetsError](err); !ok {
		t.Fatalf("got %v", err)
	}
	failing(t, err, "group app has an open transaction with offsets of in", "processor txn abort")
	producer.end(kgo.TryAbort)
	if _, err := PlanOffsets(short(t), fake.client, "app", "in", nil, Position{kind: atEarliest}); err != nil {
		t.Errorf("after the abort: %v", err)
	}
}

func TestOffsetsOfAPredecessorAreShownAsStale(t *testing.T) {
	t.Parallel()
	fake := filled(t, time.UnixMilli(1_700_000_000_000))
	fake.commit(t, "in", 0, 2, testMetadata([16]byte{9}))
	shown, err := CommittedOffsets(short(t), fake.admin, "app", []string{"in"}, parseTestMetadata)
	if err != nil {
		t.Fatal(err)
	}
	if !shown[0].Stale || shown[1].Stale {
		t.Errorf("got %+v", shown)
	}
}
