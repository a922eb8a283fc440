package ingest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// The headers of an effects record.
const (
	fieldFormat = iota
	fieldID
	fieldSource
	fieldIndex
	fieldTopicID
	fieldGeneration
	fieldEndpoint
	fieldClass
	fieldContentType
	fieldBusinessKey // the first that may be missing
	fieldTrace
	fieldState
	fields
)

var fieldNames = [fields]string{
	fieldFormat: message.HeaderFormat, fieldID: message.HeaderID, fieldSource: message.HeaderSource,
	fieldIndex: message.HeaderIndex, fieldTopicID: message.HeaderTopicID, fieldGeneration: message.HeaderGeneration,
	fieldEndpoint: message.HeaderEndpoint, fieldClass: message.HeaderClass, fieldContentType: message.HeaderContentType,
	fieldBusinessKey: message.HeaderBusinessKey, fieldTrace: message.HeaderTrace,
	fieldState: message.HeaderState,
}

// Decode reads an effects record in the format that internal/txn/DESIGN.md lays down. It is strict,
// because only Pawl writes there: what it can't read was written by a newer release or by mistake, and
// the error says which. The intent keeps no memory of the record.
func Decode(record *kgo.Record) (outbox.Intent, error) {
	values, has, err := split(record.Headers)
	if err != nil {
		return outbox.Intent{}, err
	}
	intent := outbox.Intent{
		Lane: record.Partition, Offset: record.Offset, At: record.Timestamp.UTC(),
		Endpoint: string(values[fieldEndpoint]), Class: class(values[fieldClass]),
		ContentType: contentType(values[fieldContentType]), BusinessKey: string(values[fieldBusinessKey]),
	}
	intent.Trace, intent.TraceState = trace(values[fieldTrace], values[fieldState])
	var problems [6]error
	intent.ID, problems[0] = parseID(values[fieldID])
	intent.Source, problems[1] = message.ParseSource(string(values[fieldSource]))
	intent.Source.TopicID, problems[2] = parseTopicID(values[fieldTopicID])
	intent.Index, problems[3] = parseNumber(fieldIndex, values[fieldIndex])
	intent.Source.ReplayGeneration, problems[4] = parseNumber(fieldGeneration, values[fieldGeneration])
	problems[5] = check(record, &intent, has[fieldBusinessKey])
	for _, problem := range problems {
		if problem != nil {
			return outbox.Intent{}, problem
		}
	}
	// One piece of memory for both, and none of the record's: its bytes are a slice of everything that
	// was fetched together, and one intent that waits would keep all that.
	payload := append(append(make([]byte, 0, len(record.Key)+len(record.Value)), record.Key...), record.Value...)
	intent.Key = payload[:len(record.Key):len(record.Key)]
	intent.Body = payload[len(record.Key):]
	return intent, nil
}

// split finds the values of the headers.
func split(headers []kgo.RecordHeader) (values [fields][]byte, has [fields]bool, err error) {
	for _, header := range headers {
		field := fieldOf(header.Key)
		switch {
		case field >= 0 && !has[field]:
			values[field], has[field] = header.Value, true
		case field == fieldTrace || field == fieldState:
			// The names that others write too; the first is ours.
		case field >= 0:
			err = fmt.Errorf("header %s is there twice", header.Key)
		case strings.HasPrefix(header.Key, message.HeaderPrefix):
			err = fmt.Errorf("header %s is unknown to this release", header.Key)
		}
	}
	// First of all, because another format explains everything else.
	switch format := string(values[fieldFormat]); {
	case !has[fieldFormat]:
		return values, has, fmt.Errorf("header %s is missing, so that Pawl did not write it", message.HeaderFormat)
	case format != message.EffectFormat:
		return values, has, fmt.Errorf("it has format %q, this release reads only %s: run the release that wrote it, or a later one", format, message.EffectFormat)
	case err != nil:
		return values, has, err
	}
	for field := range fieldBusinessKey {
		if !has[field] {
			return values, has, fmt.Errorf("header %s is missing", fieldNames[field])
		}
	}
	return values, has, nil
}

// fieldOf gives the field of a header's name, or -1.
func fieldOf(name string) int {
	for field := range fieldNames {
		if fieldNames[field] == name {
			return field
		}
	}
	return -1
}

// class gives one of the two without a copy, and a class that is none as it is.
func class(text []byte) message.Class {
	switch string(text) {
	case string(message.AtLeastOnce):
		return message.AtLeastOnce
	case string(message.AtMostOnce):
		return message.AtMostOnce
	default:
		return message.Class(text)
	}
}

// contentType spares the copy of the usual one.
func contentType(text []byte) string {
	const usual = "application/json"
	if string(text) == usual {
		return usual
	}
	return string(text)
}

func check(record *kgo.Record, intent *outbox.Intent, business bool) error {
	switch {
	case intent.Endpoint == "":
		return fmt.Errorf("header %s is empty", message.HeaderEndpoint)
	case intent.Class != message.AtLeastOnce && intent.Class != message.AtMostOnce:
		return fmt.Errorf("header %s is %q, want %s or %s", message.HeaderClass, intent.Class, message.AtLeastOnce, message.AtMostOnce)
	case business && intent.BusinessKey == "":
		return fmt.Errorf("header %s is empty", message.HeaderBusinessKey)
	case record.Key == nil:
		return errors.New("it has no key, which is the order key")
	}
	return nil
}

// parseID reads the text of a UUID version 5, in the one way that Pawl writes it.
func parseID(text []byte) (message.ID, error) {
	var id message.ID
	var digits [2 * len(id)]byte
	if len(text) == len("00000000-0000-0000-0000-000000000000") {
		n := copy(digits[:], text[:8])
		for _, from := range []int{9, 14, 19} {
			n += copy(digits[n:], text[from:from+4])
		}
		copy(digits[n:], text[24:])
	}
	var back [36]byte
	if _, err := hex.Decode(id[:], digits[:]); err != nil || !bytes.Equal(id.AppendText(back[:0]), text) || id[6]>>4 != 5 {
		return message.ID{}, fmt.Errorf("header %s is no UUID of version 5", message.HeaderID)
	}
	return id, nil
}

func parseTopicID(text []byte) ([16]byte, error) {
	var id [16]byte
	if len(text) == hex.EncodedLen(len(id)) {
		if _, err := hex.Decode(id[:], text); err == nil {
			return id, nil
		}
	}
	return id, fmt.Errorf("header %s is not 32 hex digits", message.HeaderTopicID)
}

func parseNumber(field int, text []byte) (int, error) {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 || strconv.Itoa(n) != string(text) {
		return 0, fmt.Errorf("header %s is not a plain number", fieldNames[field])
	}
	return n, nil
}

// trace keeps a trace context that can be headers of a call. It came in with the input, so that anybody may have
// written it; an effect without a trace is as good as one with it.
func trace(parent, state []byte) (string, string) {
	printable := func(text []byte, from byte) bool {
		return !bytes.ContainsFunc(text, func(r rune) bool { return r < rune(from) || r > '~' })
	}
	switch {
	case len(parent) == 0 || !printable(parent, '!'):
		return "", ""
	case !printable(state, ' '):
		return string(parent), ""
	default:
		return string(parent), string(bytes.Trim(state, " "))
	}
}
