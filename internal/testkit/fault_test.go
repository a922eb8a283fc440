package testkit

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Both header forms: EndTxn is flexible from version 3 on, so that tags follow the client id.
func TestRequestsAreDecoded(t *testing.T) {
	t.Parallel()
	for _, version := range []int16{0, 2, 3, 5} {
		request := kmsg.NewPtrEndTxnRequest()
		request.TransactionalID, request.Commit = "orders.one.0", true
		request.SetVersion(version)
		frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("client")).AppendRequest(nil, request, 7)
		got, err := decodeRequest(int16(kmsg.EndTxn), version, frame[4:])
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if end, ok := got.(*kmsg.EndTxnRequest); !ok || end.TransactionalID != "orders.one.0" || !end.Commit {
			t.Errorf("version %d: decoded %+v", version, got)
		}
		for cut := range len(frame) - 4 {
			if _, err := decodeRequest(int16(kmsg.EndTxn), version, frame[4:4+max(cut, headerMin)]); err == nil && cut >= headerMin {
				t.Errorf("version %d: decoded %d of %d bytes", version, cut, len(frame)-4)
			}
		}
	}
}

func TestAnswersAreRewritten(t *testing.T) {
	t.Parallel()
	for _, version := range []int16{0, 3, 5} {
		response := kmsg.NewPtrEndTxnResponse()
		response.SetVersion(version)
		response.ThrottleMillis = 9
		frame := []byte{0, 0, 0, 0, 0, 0, 0, 7}
		if response.IsFlexible() {
			frame = append(frame, 1, 5, 2, 'h', 'i') // a tag nobody knows
		}
		frame = response.AppendTo(frame)
		frame[3] = byte(len(frame) - 4)
		got, err := rewriteAnswer(int16(kmsg.EndTxn), version, frame, ErrorCode(kerr.UnknownServerError))
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if len(got) != len(frame) || got[7] != 7 {
			t.Errorf("version %d: %x became %x", version, frame, got)
		}
		same, err := rewriteAnswer(int16(kmsg.EndTxn), version, got, func(r kmsg.Response) {
			end, ok := r.(*kmsg.EndTxnResponse)
			if !ok || end.ErrorCode != kerr.UnknownServerError.Code || end.ThrottleMillis != 9 {
				t.Errorf("version %d: rewritten to %+v", version, r)
			}
		})
		if err != nil || string(same) != string(got) {
			t.Errorf("version %d: no change made %x of %x, %v", version, same, got, err)
		}
	}
}

func TestFaultStrikesAsOftenAsToldAfterSkipping(t *testing.T) {
	t.Parallel()
	var f faults
	i := &Injection{Fault: Fault{Key: kmsg.EndTxn, Skip: 1, Times: 2, LoseAnswer: true}, faults: &f}
	f.list = append(f.list, i)
	var struck []int
	for n := range 6 {
		if f.strike(int16(kmsg.EndTxn), nil) != nil {
			struck = append(struck, n)
		}
		if f.strike(int16(kmsg.Produce), nil) != nil {
			t.Error("struck a request of another key")
		}
	}
	if len(struck) != 2 || struck[0] != 1 || struck[1] != 2 {
		t.Errorf("struck requests %v, want the second and the third", struck)
	}
	i.Times = 0
	i.Remove()
	if f.strike(int16(kmsg.EndTxn), nil) != nil {
		t.Error("struck after Remove")
	}
}
