package handlers

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The bounds of an order. They keep a hostile record cheap; a real order is far below them.
const (
	valueBytesMax = 1 << 20
	linesMax      = 1000
	quantityMax   = 1_000_000
	idBytesMax    = 64
)

// schemaVersion is the version of orders and of everything that orders writes.
const schemaVersion = 1

// absent marks a number that the JSON did not have; every valid one is positive.
const absent = -1

// order is version 1 of the input: schema/order.v1.json.
type order struct {
	SchemaVersion int         `json:"schema_version"`
	OrderID       string      `json:"order_id"`
	Customer      customer    `json:"customer"`
	Currency      string      `json:"currency"`
	PlacedAt      string      `json:"placed_at"`
	ApprovedBy    string      `json:"approved_by"`
	Lines         []orderLine `json:"lines"`
}

type customer struct {
	ID   string `json:"id"`
	Tier string `json:"tier"`
}

type orderLine struct {
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	UnitPrice string `json:"unit_price"`
	Tax       string `json:"tax"`
}

// decodeStrict decodes value into a struct whose version member has been set to absent. Names that
// the schema does not have, names that occur twice, invalid UTF-8 and anything behind the value are
// rejects.
func decodeStrict(value []byte, into any) error {
	if len(value) == 0 {
		return reject(ReasonNoValue, "the record has no value")
	}
	if len(value) > valueBytesMax {
		return reject(ReasonValueTooLarge, "the value has %d bytes, at most %d are allowed", len(value), valueBytesMax)
	}
	err := json.Unmarshal(value, into, json.RejectUnknownMembers(true))
	if err == nil && jsontext.Value(value).Kind() == 'n' {
		return reject(ReasonBadType, "the value is null, want an object")
	}
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		return reject(ReasonBadJSON, "decode: %v", err)
	}
	// A record of a later version may well have members and types that this one lacks: its version
	// is the better reason. Paid for on the way to the dead-letter topic only.
	if version := peekVersion(value); version != absent && version != schemaVersion {
		return unknownVersion(version)
	}
	if errors.Is(err, json.ErrUnknownName) {
		return reject(ReasonUnknownMember, "%s is not a member of the schema", quote(string(semantic.JSONPointer)))
	}
	return reject(ReasonBadType, "%s is a JSON %s of the wrong type or range", quote(string(semantic.JSONPointer)), kind(semantic.JSONKind))
}

func unknownVersion(version int) error {
	return reject(ReasonUnknownVersion, "schema_version is %d, this release knows %d", version, schemaVersion)
}

func peekVersion(value []byte) int {
	peek := struct {
		SchemaVersion int `json:"schema_version"`
	}{SchemaVersion: absent}
	if json.Unmarshal(value, &peek) != nil {
		return absent
	}
	return peek.SchemaVersion
}

func kind(k jsontext.Kind) string {
	switch k {
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	default:
		return "value"
	}
}

// checkVersion tells an absent version from an unknown one.
func checkVersion(version int) error {
	switch version {
	case schemaVersion:
		return nil
	case absent:
		return missing("schema_version")
	default:
		return unknownVersion(version)
	}
}

func missing(field string) error {
	return reject(ReasonMissingField, "%s is missing", field)
}

// check judges everything about an order that needs no price.
func (o *order) check() error {
	if err := checkVersion(o.SchemaVersion); err != nil {
		return err
	}
	if err := checkID("order_id", o.OrderID); err != nil {
		return err
	}
	if err := checkID("customer.id", o.Customer.ID); err != nil {
		return err
	}
	switch {
	case o.Customer.Tier == "":
		return missing("customer.tier")
	case o.Currency == "":
		return missing("currency")
	case o.PlacedAt == "":
		return missing("placed_at")
	case len(o.Lines) == 0:
		return missing("lines")
	case len(o.Lines) > linesMax:
		return reject(ReasonTooManyLines, "the order has %d lines, at most %d are allowed", len(o.Lines), linesMax)
	case o.ApprovedBy != "" && !isID(o.ApprovedBy):
		return badID("approved_by", o.ApprovedBy)
	}
	if _, err := time.Parse(time.RFC3339, o.PlacedAt); err != nil || len(o.PlacedAt) > idBytesMax {
		return reject(ReasonBadField, "placed_at is %s, want a time such as 2026-11-23T10:00:00Z", quote(o.PlacedAt))
	}
	for i := range o.Lines {
		if err := o.Lines[i].check(i); err != nil {
			return err
		}
	}
	return nil
}

func (l *orderLine) check(i int) error {
	switch {
	case l.SKU == "":
		return reject(ReasonMissingField, "lines[%d].sku is missing", i)
	case !isID(l.SKU):
		return reject(ReasonBadField, "lines[%d].sku is %s, want 1..%d of the characters A-Z a-z 0-9 . _ -", i, quote(l.SKU), idBytesMax)
	case l.Quantity < 1 || l.Quantity > quantityMax:
		return reject(ReasonBadQuantity, "lines[%d].quantity is %d, want 1..%d", i, l.Quantity, quantityMax)
	case l.UnitPrice == "":
		return reject(ReasonMissingField, "lines[%d].unit_price is missing", i)
	case l.Tax == "":
		return reject(ReasonMissingField, "lines[%d].tax is missing", i)
	}
	return nil
}

// checkID judges a mandatory identifier.
func checkID(field, id string) error {
	switch {
	case id == "":
		return missing(field)
	case !isID(id):
		return badID(field, id)
	default:
		return nil
	}
}

func badID(field, id string) error {
	return reject(ReasonBadField, "%s is %s, want 1..%d of the characters A-Z a-z 0-9 . _ -", field, quote(id), idBytesMax)
}

// isID accepts what is safe in a record key, a business key and an HTTP header alike, and what has
// one spelling only: two orders whose ids merely look the same must not share an idempotency key.
func isID(text string) bool {
	if text == "" || len(text) > idBytesMax {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
