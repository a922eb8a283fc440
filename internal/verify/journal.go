package verify

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// journalLine is a line of a call journal: what an endpoint writes down, durably, before it answers.
type journalLine struct {
	At       time.Time `json:"at"`
	ID       string    `json:"id"`      // Idempotency-Key
	Order    string    `json:"order"`   // Pawl-Order, lane:offset
	Attempt  int       `json:"attempt"` // Pawl-Attempt
	Fence    int64     `json:"fence"`   // Pawl-Fence
	Body     string    `json:"body"`    // SHA-256 in hex
	Executed bool      `json:"executed,omitempty"`
	Refused  bool      `json:"refused,omitempty"`
	Lost     bool      `json:"lost,omitempty"`
	Late     bool      `json:"late,omitempty"`
}

// lineMax bounds a line of a journal.
const lineMax = 1 << 20

// ReadJournal feeds the calls of a journal, JSON lines in the order in which they were taken. The last line may be
// cut short, by the death of the endpoint that wrote it.
func ReadJournal(from io.Reader, feed func(*Call) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), lineMax)
	number := 0
	var broken error
	for lines.Scan() {
		number++
		if broken != nil {
			return broken // not the last
		}
		var line journalLine
		err := json.Unmarshal(lines.Bytes(), &line)
		var call Call
		if err == nil {
			call, err = line.call()
		}
		if err != nil {
			broken = fmt.Errorf("line %d of the journal: %w", number, err)
			continue
		}
		if err := feed(&call); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read journal after line %d: %w", number, err)
	}
	return nil
}

func (l *journalLine) call() (Call, error) {
	call := Call{At: l.At, ID: l.ID, Attempt: l.Attempt, Fence: l.Fence, Executed: l.Executed, Refused: l.Refused, Lost: l.Lost, Late: l.Late}
	var err error
	if call.Lane, call.Offset, err = ParseOrder(l.Order); err != nil {
		return Call{}, err
	}
	if n, err := hex.Decode(call.Body[:], []byte(l.Body)); err != nil || n != len(call.Body) {
		return Call{}, fmt.Errorf("body is %q, want a SHA-256 in hex", l.Body)
	}
	return call, nil
}

// ParseOrder reads the header Pawl-Order.
func ParseOrder(text string) (lane int32, offset int64, err error) {
	first, second, _ := strings.Cut(text, ":")
	number, err := strconv.ParseInt(first, 10, 32)
	if err == nil {
		offset, err = strconv.ParseInt(second, 10, 64)
	}
	if err != nil || number < 0 || offset < 0 {
		return 0, 0, fmt.Errorf("order is %q, want lane:offset", text)
	}
	return int32(number), offset, nil
}

// AppendJournal appends the line of a call.
func AppendJournal(b []byte, call *Call) ([]byte, error) {
	line, err := json.Marshal(journalLine{
		At: call.At, ID: call.ID, Order: fmt.Sprintf("%d:%d", call.Lane, call.Offset), Attempt: call.Attempt, Fence: call.Fence,
		Body: hex.EncodeToString(call.Body[:]), Executed: call.Executed, Refused: call.Refused, Lost: call.Lost, Late: call.Late,
	})
	if err != nil {
		return b, fmt.Errorf("write journal: %w", err)
	}
	return append(append(b, line...), '\n'), nil
}
