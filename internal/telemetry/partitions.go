package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"pawl/internal/txn"
)

// The hooks about sessions and partitions. They are rare, so that their series are looked up.

func (t *Telemetry) assigned(lane int, partitions map[string][]int32) {
	if count, text := t.moved(rebalanceAssigned, partitions); count > 0 {
		t.log.LogAttrs(context.Background(), slog.LevelInfo, "partitions assigned",
			slog.Int("lane", lane), slog.Int("count", count), slog.String("partitions", text))
	}
}

func (t *Telemetry) revoked(lane int, partitions map[string][]int32) {
	if count, text := t.moved(rebalanceRevoked, partitions); count > 0 {
		t.log.LogAttrs(context.Background(), slog.LevelInfo, "partitions revoked",
			slog.Int("lane", lane), slog.Int("count", count), slog.String("partitions", text))
	}
}

func (t *Telemetry) lost(lane int, partitions map[string][]int32) {
	if count, text := t.moved(rebalanceLost, partitions); count > 0 {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "partitions lost",
			slog.Int("lane", lane), slog.Int("count", count), slog.String("partitions", text))
	}
}

// moved counts a rebalance. A cooperative one that moves nothing is none.
func (t *Telemetry) moved(kind string, partitions map[string][]int32) (count int, text string) {
	for _, numbers := range partitions {
		count += len(numbers)
	}
	if count == 0 {
		return 0, ""
	}
	t.metrics.rebalancesVec.WithLabelValues(kind).Inc()
	return count, ranges(partitions)
}

func (t *Telemetry) fenced(lane int, err error) {
	t.metrics.fencedVec.WithLabelValues(string(txn.FenceOf(err))).Inc()
	if suppressed, pass := t.pass(context.Background(), slog.LevelError, kind{"lane fenced", ""}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelError, "lane fenced", slog.Int("lane", lane), slog.Any("err", err), suppressed)
	}
}

func (t *Telemetry) buried(b txn.Buried) {
	if b.Err == nil {
		t.metrics.buried.Inc()
		t.log.Info("ended the transaction of a lane that is gone", slog.String("member", b.Member))
		return
	}
	if suppressed, pass := t.pass(context.Background(), slog.LevelWarn, kind{"can't look after lanes that are gone", ""}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "can't look after lanes that are gone: their partitions wait for txn.timeout", slog.Any("err", b.Err), suppressed)
	}
}

// Twin says that the engine has ended because another process has its name.
func (t *Telemetry) Twin() { t.metrics.twin.Set(1) }

func (t *Telemetry) rebuilt(lane int, why txn.Reason) {
	t.metrics.rebuildsVec.WithLabelValues(reasonLabel(why)).Inc()
	if suppressed, pass := t.pass(context.Background(), slog.LevelWarn, kind{"session rebuilt", string(why)}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "session rebuilt",
			slog.Int("lane", lane), slog.String("reason", reasonLabel(why)), suppressed)
	}
}

func (t *Telemetry) unlisted(u txn.Unlisted) {
	t.metrics.unlisted.Add(float64(u.Records))
	if suppressed, pass := t.pass(context.Background(), slog.LevelWarn, kind{"a broker gave aborted input as committed", u.Topic}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "a broker gave aborted input as committed: none was handled",
			slog.Int("lane", u.Lane), slog.String("topic", u.Topic), slog.Int("partition", int(u.Partition)),
			slog.Int64("records", u.Records), suppressed)
	}
}

func (t *Telemetry) halted(halted txn.Halted) {
	if suppressed, pass := t.pass(context.Background(), slog.LevelError, kind{"partition halted", halted.Topic}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelError, "partition halted",
			slog.Int("lane", halted.Lane), slog.String("topic", halted.Topic), slog.Int("partition", int(halted.Partition)),
			slog.Any("err", halted.Err), suppressed)
	}
}

// ranges writes partitions the short way: "orders/0-3,7 refunds/1".
func ranges(partitions map[string][]int32) string {
	var text strings.Builder
	for _, topic := range slices.Sorted(maps.Keys(partitions)) {
		numbers := slices.Sorted(slices.Values(partitions[topic]))
		separator := "/"
		for i := 0; i < len(numbers); {
			last := i
			for last+1 < len(numbers) && numbers[last+1] == numbers[last]+1 {
				last++
			}
			if separator == "/" {
				if text.Len() > 0 {
					text.WriteByte(' ')
				}
				text.WriteString(topic)
			}
			text.WriteString(separator)
			text.WriteString(strconv.Itoa(int(numbers[i])))
			if last > i {
				text.WriteByte('-')
				text.WriteString(strconv.Itoa(int(numbers[last])))
			}
			separator, i = ",", last+1
		}
	}
	return text.String()
}
