package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// eventFormat is the version of result events that this release writes. Their schema is published as
// effect-result.v1.json beside the handlers that read them.
const eventFormat = 1

// event is the value of a record on the results topic.
type event struct {
	Format      int           `json:"format"`
	EffectID    string        `json:"effect_id"`
	Lane        int32         `json:"lane"`
	Offset      int64         `json:"offset"`
	Source      string        `json:"source"`
	Endpoint    string        `json:"endpoint"`
	BusinessKey string        `json:"business_key,omitempty"`
	Status      outbox.Status `json:"status"`
	First       *place        `json:"first,omitempty"`
	Attempts    int           `json:"attempts"`
	HTTPStatus  int           `json:"http_status,omitempty"`
	Error       string        `json:"error,omitempty"`
	Request     content       `json:"request"`
	Response    *content      `json:"response,omitempty"`
}

type place struct {
	Lane   int32 `json:"lane"`
	Offset int64 `json:"offset"`
}

type content struct {
	ContentType string `json:"content_type,omitempty"`
	Body        []byte `json:"body"` // base64 in JSON; never nil, which would be null
	Truncated   bool   `json:"truncated,omitempty"`
}

func newEvent(r outbox.Result) *event {
	e := &event{
		Format: eventFormat, EffectID: r.Intent.ID.String(),
		Lane: r.Intent.Lane, Offset: r.Outcome.Offset, Source: r.Intent.Source.String(),
		Endpoint: r.Intent.Endpoint, BusinessKey: r.Intent.BusinessKey,
		Status: r.Outcome.Status, Attempts: r.Outcome.Attempts,
		Request: content{ContentType: r.Intent.ContentType, Body: present(r.Intent.Body)},
	}
	if twin := r.Intent.Twin; twin != nil && (e.Status == outbox.Duplicate || e.Status == outbox.Conflict) {
		e.First = &place{twin.Lane, twin.Offset}
	}
	if status := r.Outcome.HTTPStatus; status >= 100 && status <= 599 { // an endpoint may answer anything
		e.HTTPStatus = status
	}
	if e.Status != outbox.Done {
		e.Error = line(r.Outcome.Error)
	}
	if response := r.Outcome.Response; response != nil {
		e.Response = &content{ContentType: response.ContentType, Body: present(response.Body), Truncated: response.Truncated}
	}
	return e
}

func present(body []byte) []byte {
	if body == nil {
		return []byte{}
	}
	return body
}

// line makes text fit for an error: one line of at most outbox.ErrorMax bytes, cut between characters.
func line(text string) string {
	text = strings.ToValidUTF8(strings.NewReplacer("\r", " ", "\n", " ").Replace(text), "?")
	if len(text) <= outbox.ErrorMax {
		return text
	}
	end := outbox.ErrorMax
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

func (e *event) encode() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return nil, fmt.Errorf("encode result of effect %d/%d: %w", e.Lane, e.Offset, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// recordOverhead is more than what a record and its batch add to keys, values and headers (record batch
// format v2: 61 bytes of batch, at most 60 of varints, and for each of four headers its name and 10).
const recordOverhead = 512

// record makes the event of an outcome, for a topic that takes limit bytes. What does not fit loses the
// body of the response first, then the error: both are for people. The request stays whole, because
// handlers act on it; where that is too much the lane must halt.
func record(topic string, limit int, r outbox.Result) (*kgo.Record, *Trimmed, error) {
	made := &kgo.Record{
		Topic: topic, Partition: r.Intent.Lane, Key: r.Intent.Key,
		Headers: []kgo.RecordHeader{
			{Key: message.HeaderID, Value: []byte(r.Intent.ID.String())},
			{Key: message.HeaderFormat, Value: []byte(strconv.Itoa(eventFormat))},
		},
	}
	if r.Intent.Trace != "" {
		made.Headers = append(made.Headers, kgo.RecordHeader{Key: message.HeaderTrace, Value: []byte(r.Intent.Trace)})
	}
	if r.Intent.TraceState != "" {
		made.Headers = append(made.Headers, kgo.RecordHeader{Key: message.HeaderState, Value: []byte(r.Intent.TraceState)})
	}
	e := newEvent(r)
	var trimmed *Trimmed
	for {
		var err error
		if made.Value, err = e.encode(); err != nil {
			return nil, nil, &haltError{err}
		}
		size := recordOverhead + len(made.Key) + len(made.Value) + len(r.Intent.Trace) + len(r.Intent.TraceState)
		switch {
		case size <= limit:
			return made, trimmed, nil
		case e.Response != nil && len(e.Response.Body) > 0:
			e.Response.Body, e.Response.Truncated = []byte{}, true
			trimmed = &Trimmed{Lane: r.Intent.Lane, Offset: r.Outcome.Offset}
		case e.Error != "":
			e.Error = ""
			trimmed = &Trimmed{Lane: r.Intent.Lane, Offset: r.Outcome.Offset, Error: true}
		default:
			return nil, nil, &haltError{fmt.Errorf(
				"the result of effect %d/%d (endpoint %s) needs up to %d bytes, max.message.bytes of %s allows %d, and its request must not be cut: raise it (kafka-configs --alter --entity-type topics --entity-name %s --add-config max.message.bytes=%d); `processor topics apply` sets a value that takes the result of any effect of 1 MiB",
				r.Intent.Lane, r.Outcome.Offset, r.Intent.Endpoint, size, topic, limit, topic, size)}
		}
	}
}

// haltError says that no retry will help before an operator has done something.
type haltError struct{ err error }

func (e *haltError) Error() string { return e.err.Error() }
func (e *haltError) Unwrap() error { return e.err }
