//go:build unix

package verify

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"pawl/internal/message"
)

type copier struct{}

func (copier) Handle(in message.In, out *message.Batch) error {
	out.Emit(message.Out{Output: "first", Key: in.Key, Value: in.Value, Headers: in.Headers})
	return nil
}

// rawLogs writes n inputs of 100 bytes and their copies as batches of 500, in transactions of 1000.
func rawLogs(n int) (in, out [][]byte) {
	space := message.Source{Application: application, TopicID: inID}.Space()
	var offset int64
	for from := 0; from < n; from += 500 {
		var inputs, outputs []*Record
		for i := from; i < min(from+500, n); i++ {
			value := fmt.Appendf(make([]byte, 0, 100), "%0100d", i)
			key := fmt.Appendf(nil, "key-%d", i%5000)
			inputs = append(inputs, &Record{Offset: int64(i), Timestamp: noon, Key: key, Value: value, Producer: -1})
			outputs = append(outputs, &Record{
				Offset: offset, Timestamp: noon, Key: key, Value: value, Transactional: true, Producer: 1, Epoch: int16(from / 1000 % 30000),
				Headers: []message.Header{header(message.HeaderSource, fmt.Sprintf("in/0/%d", i)), header(message.HeaderID, space.ID(0, int64(i), 0).String())},
			})
			offset++
		}
		in = append(in, encodeBatch(inputs, 0))
		out = append(out, encodeBatch(outputs, 0))
		if from/500%2 == 1 {
			out = append(out, encodeBatch([]*Record{{Offset: offset, Timestamp: noon, Key: []byte{0, 0, 0, 1}, Transactional: true, Producer: 1, Epoch: outputs[0].Epoch + 1}}, attributeControl))
			offset++
		}
	}
	return in, out
}

// The rate of the whole check of the handler copy, from batches as brokers send them to the report: decoding,
// model, digests, files and comparison. Records are inputs and outputs together. Memory is what the heap has
// beyond the batches at the end of feeding.
func BenchmarkCheck(b *testing.B) {
	const inputs = 500_000
	in, out := rawLogs(inputs)
	for _, memory := range []int{defaultMemory, 16 << 20} {
		b.Run(fmt.Sprintf("%dMiB", memory>>20), func(b *testing.B) {
			var before, after runtime.MemStats
			var spilled int64
			cpu := used(b)
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				c := newChecker(b, Plan{
					Application: application, Inputs: []Input{{Topic: inTopic, TopicID: inID, Handler: copier{}}},
					Outputs: map[string]string{"first": outTopic}, Memory: memory, Dir: b.TempDir(), Drained: true,
				})
				d := newDecoder()
				for _, log := range []struct {
					topic   string
					batches [][]byte
				}{{inTopic, in}, {outTopic, out}} {
					for _, raw := range log.batches {
						batch, _, err := cutBatch(raw)
						if err == nil {
							err = d.decode(log.topic, 0, batch, 0, 1<<40, c.Entry)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
				runtime.ReadMemStats(&after)
				if err := c.Offsets(&Offsets{Topic: inTopic, Committed: inputs, End: inputs}); err != nil {
					b.Fatal(err)
				}
				report, err := c.Report()
				if err != nil {
					b.Fatal(err)
				}
				if !report.Clean() || report.Saw.Modelled != inputs || report.Saw.Outputs != inputs {
					b.Fatalf("found %v in %+v", report.Findings, report.Saw)
				}
				spilled = report.Saw.Spilled
			}
			b.ReportMetric(2*inputs*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(2*inputs*float64(b.N)/(used(b)-cpu).Seconds(), "records/cpu-s")
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/(1<<20), "heap-MiB")
			b.ReportMetric(float64(spilled)/(1<<20), "spilled-MiB")
		})
	}
}

// used is the processor time of this process: on a shared machine that says more than the clock.
func used(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
