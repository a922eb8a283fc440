package handlers

import (
	"fmt"
	"strings"
	"unicode"
)

// The reasons of rejects, a closed set: they are label values of metrics and filters of `dlq ls`.
const (
	ReasonNoValue         = "no_value"         // a tombstone or an empty value
	ReasonValueTooLarge   = "value_too_large"  // longer than this format allows
	ReasonBadJSON         = "bad_json"         // not JSON, cut off, names twice, or not UTF-8
	ReasonUnknownVersion  = "unknown_version"  // a schema version this release does not know
	ReasonUnknownMember   = "unknown_member"   // a member the schema does not have
	ReasonBadType         = "bad_type"         // a member of another JSON type than the schema's
	ReasonMissingField    = "missing_field"    // a mandatory member is absent, null or empty
	ReasonBadField        = "bad_field"        // a member's content is malformed
	ReasonBadAmount       = "bad_amount"       // not a plain decimal number, or out of bounds
	ReasonBadQuantity     = "bad_quantity"     // outside 1..1,000,000
	ReasonTooManyLines    = "too_many_lines"   // more than 1,000 order lines
	ReasonUnknownCurrency = "unknown_currency" // not an ISO 4217 code in use
	ReasonUnknownTier     = "unknown_tier"     // a customer tier without a discount rule
	ReasonUnknownTax      = "unknown_tax"      // a tax class without a rate
	ReasonUnknownStatus   = "unknown_status"   // a result event with a status this release does not know
	ReasonBadEffect       = "bad_effect"       // a result event whose effect is not one that orders made
	ReasonVoidFailed      = "void_failed"      // money may have been taken and could not be given back: a person must look
)

// Reasons lists every reason a handler of this package rejects with.
func Reasons() []string {
	return []string{
		ReasonNoValue, ReasonValueTooLarge, ReasonBadJSON, ReasonUnknownVersion, ReasonUnknownMember,
		ReasonBadType, ReasonMissingField, ReasonBadField, ReasonBadAmount, ReasonBadQuantity,
		ReasonTooManyLines, ReasonUnknownCurrency, ReasonUnknownTier, ReasonUnknownTax,
		ReasonUnknownStatus, ReasonBadEffect, ReasonVoidFailed,
	}
}

// rejectBytesMax bounds the text of a reject: it becomes a header of the dead letter, and parts of
// it may be the sender's.
const rejectBytesMax = 300

// rejected is a handler's refusal of one record.
type rejected struct {
	reason string
	text   string
}

// Error gives one printable line of bounded length.
func (r *rejected) Error() string { return r.text }

// Reason gives the label, one of Reasons.
func (r *rejected) Reason() string { return r.reason }

func reject(reason, format string, args ...any) error {
	return &rejected{reason: reason, text: line(fmt.Sprintf(format, args...))}
}

// line makes any text one printable line of valid UTF-8 of at most rejectBytesMax bytes.
func line(text string) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text[:min(len(text), 4*rejectBytesMax)])
	if len(clean) <= rejectBytesMax {
		return clean
	}
	const more = "..."
	return strings.ToValidUTF8(clean[:rejectBytesMax-len(more)], "") + more
}
