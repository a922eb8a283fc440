//go:build linux

package verify

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// logFile is the log of a partition in a file: batches one behind the other, as brokers send them.
type logFile struct {
	path string
	end  int64 // offset
}

// writeLogs writes n inputs of 100 bytes and their copies as batches of 500, in transactions of 1000.
func writeLogs(b *testing.B, n int) (in, out logFile) {
	b.Helper()
	dir := b.TempDir()
	open := func(name string) (*bufio.Writer, *os.File) {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		return bufio.NewWriterSize(file, 1<<20), file
	}
	inputs, inFile := open("in")
	outputs, outFile := open("out")
	space := message.Source{Application: application, TopicID: inID}.Space()
	in, out = logFile{inFile.Name(), int64(n)}, logFile{path: outFile.Name()}
	write := func(to io.Writer, records []*Record, attributes uint16) {
		if _, err := to.Write(encodeBatch(records, attributes)); err != nil {
			b.Fatal(err)
		}
	}
	for from := 0; from < n; from += 500 {
		var read, made []*Record
		epoch := int16(from / 1000 % 30000)
		for i := from; i < min(from+500, n); i++ {
			value, key := fmt.Appendf(make([]byte, 0, 100), "%0100d", i), fmt.Appendf(nil, "key-%d", i%5000)
			read = append(read, &Record{Offset: int64(i), Timestamp: noon, Key: key, Value: value, Producer: -1})
			made = append(made, &Record{
				Offset: out.end, Timestamp: noon, Key: key, Value: value, Transactional: true, Producer: 1, Epoch: epoch,
				Headers: []message.Header{header(message.HeaderSource, fmt.Sprintf("in/0/%d", i)), header(message.HeaderID, space.ID(0, int64(i), 0).String())},
			})
			out.end++
		}
		write(inputs, read, 0)
		write(outputs, made, 0)
		if from/500%2 == 1 {
			write(outputs, []*Record{{Offset: out.end, Timestamp: noon, Key: []byte{0, 0, 0, 1}, Transactional: true, Producer: 1, Epoch: epoch + 1}}, attributeControl)
			out.end++
		}
	}
	for _, one := range []struct {
		buffered *bufio.Writer
		file     *os.File
	}{{inputs, inFile}, {outputs, outFile}} {
		if err := one.buffered.Flush(); err != nil {
			b.Fatal(err)
		}
		if err := one.file.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return in, out
}

// send cuts a log into pieces, as fetching does.
func (l logFile) send(b *testing.B, topic string, pieces chan<- piece) {
	b.Helper()
	file, err := os.Open(l.path)
	if err != nil {
		b.Error(err)
		return
	}
	defer file.Close()
	whole := &progress{Range: Range{Topic: topic, To: l.end}}
	for kept := []byte(nil); whole.next < l.end; {
		answer := make([]byte, partitionSize)
		n, err := file.Read(answer[copy(answer, kept):])
		if err != nil {
			b.Error(err)
			return
		}
		one := piece{progress: whole, from: whole.next}
		for kept = answer[:len(kept)+n]; ; {
			batch, rest, err := cutBatch(kept)
			if err != nil {
				b.Error(err)
				return
			}
			if batch == nil {
				break
			}
			kept, whole.next = rest, batch.next()
			one.batches = append(one.batches, batch)
		}
		pieces <- one
	}
}

// The rate of the whole check of the handler copy, from batches as brokers send them to the report: checksums, decoding,
// model, digests, files and comparison. Records are inputs and outputs together. Memory is the most that the process
// had of the machine's, so that the order of the budgets matters.
func BenchmarkCheck(b *testing.B) {
	const inputs = 2_000_000
	in, out := writeLogs(b, inputs)
	for _, memory := range []int{16 << 20, defaultMemory} {
		b.Run(fmt.Sprintf("%dMiB", memory>>20), func(b *testing.B) {
			var spilled int64
			cpu, _ := used(b)
			for b.Loop() {
				spilled = checkLogs(b, memory, inputs, in, out)
			}
			after, peak := used(b)
			b.ReportMetric(2*inputs*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(2*inputs*float64(b.N)/(after-cpu).Seconds(), "records/cpu-s")
			b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
			b.ReportMetric(float64(spilled)/(1<<20), "spilled-MiB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func checkLogs(b *testing.B, memory int, inputs int64, in, out logFile) (spilled int64) {
	b.Helper()
	c := newChecker(b, Plan{
		Application: application, Inputs: []Input{{Topic: inTopic, TopicID: inID, Handler: copier{}}},
		Outputs: map[string]string{"first": outTopic}, Memory: memory, Dir: b.TempDir(), Drained: true,
	})
	pieces := make(chan piece)
	go func() {
		defer close(pieces)
		in.send(b, inTopic, pieces)
		out.send(b, outTopic, pieces)
	}()
	if err := unpack(pieces, Uncommitted, func() {}, c.Entry); err != nil {
		b.Fatal(err)
	}
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
	return report.Saw.Spilled
}

// used is the processor time of this process, which on a shared machine says more than the clock, and the
// most memory that it had.
func used(b *testing.B) (cpu time.Duration, peak int64) {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), usage.Maxrss << 10
}
