package handlers

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"pawl/internal/message"
	"pawl/internal/testkit/golden"
)

func reviewing(tb testing.TB) Handler {
	tb.Helper()
	return mustNew(tb, "orders", map[string]any{"review": "review", "review_above": map[string]any{"USD": 10_000}})
}

func TestOrdersWriteWhatTheGoldenFilesSay(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("testdata/orders/*.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			t.Parallel()
			out, err := handle(reviewing(t), readFile(t, input))
			if err != nil {
				t.Fatal(err)
			}
			golden.Is(t, strings.TrimSuffix(input, ".json")+".golden", render(out))
		})
	}
}

// orderWith gives a valid order with one replacement in its text.
func orderWith(old, replacement string) string {
	const valid = `{"schema_version":1,"order_id":"o-1","customer":{"id":"c-1","tier":"gold"},"currency":"EUR",` +
		`"placed_at":"2026-11-23T10:00:00Z","lines":[{"sku":"s-1","quantity":2,"unit_price":"10.00","tax":"standard"}]}`
	if !strings.Contains(valid, old) {
		panic("the valid order has no " + old)
	}
	return strings.Replace(valid, old, replacement, 1)
}

type rejectCase struct {
	name, value, want string
}

func orderRejects() []rejectCase {
	line := `{"sku":"s-1","quantity":2,"unit_price":"10.00","tax":"standard"}`
	return []rejectCase{
		{"tombstone", "", ReasonNoValue},
		{"too large", orderWith("s-1", strings.Repeat("x", valueBytesMax)), ReasonValueTooLarge},
		{"ten megabytes of nothing", strings.Repeat(" ", 10<<20), ReasonValueTooLarge},
		{"not JSON", "hello", ReasonBadJSON},
		{"cut off", orderWith("]}", "]"), ReasonBadJSON},
		{"second value behind", orderWith("]}", "]}{}"), ReasonBadJSON},
		{"member twice", orderWith(`"order_id":"o-1"`, `"order_id":"o-1","order_id":"o-2"`), ReasonBadJSON},
		{"member twice in a line", orderWith(`"quantity":2`, `"quantity":2,"quantity":3`), ReasonBadJSON},
		{"invalid UTF-8", orderWith("s-1", "s\xff"), ReasonBadJSON},
		{"lone surrogate", orderWith("s-1", `\ud800`), ReasonBadJSON},
		{"deep nesting", strings.Repeat("[", 100_000), ReasonBadType},
		{"array", "[]", ReasonBadType},
		{"string", `"o-1"`, ReasonBadType},
		{"number", "1", ReasonBadType},
		{"null", " null", ReasonBadType},
		{"empty object", "{}", ReasonMissingField},
		{"unknown member", orderWith(`"lines"`, `"colour":"red","lines"`), ReasonUnknownMember},
		{"member in other case", orderWith(`"currency"`, `"Currency"`), ReasonUnknownMember},
		{"unknown member in a line", orderWith(`"tax"`, `"taxes":1,"tax"`), ReasonUnknownMember},
		{"version 2", orderWith(`"schema_version":1`, `"schema_version":2`), ReasonUnknownVersion},
		{"version 2 with other members", `{"schema_version":2,"orderId":"o-1"}`, ReasonUnknownVersion},
		{"version 2 with other types", `{"customer":"c-1","schema_version":2}`, ReasonUnknownVersion},
		{"version 0", orderWith(`"schema_version":1`, `"schema_version":0`), ReasonUnknownVersion},
		{"version null", orderWith(`"schema_version":1`, `"schema_version":null`), ReasonUnknownVersion},
		{"no version", orderWith(`"schema_version":1,`, ``), ReasonMissingField},
		{"version as text", orderWith(`"schema_version":1`, `"schema_version":"1"`), ReasonBadType},
		{"version as fraction", orderWith(`"schema_version":1`, `"schema_version":1.0`), ReasonBadType},
		{"no order id", orderWith(`"order_id":"o-1",`, ``), ReasonMissingField},
		{"empty order id", orderWith(`"o-1"`, `""`), ReasonMissingField},
		{"order id null", orderWith(`"o-1"`, `null`), ReasonMissingField},
		{"order id with line break", orderWith(`"o-1"`, `"o\r\n1"`), ReasonBadField},
		{"order id with NUL", orderWith(`"o-1"`, `"o\u0000"`), ReasonBadField},
		{"order id with look-alike", orderWith(`"o-1"`, `"о-1"`), ReasonBadField},
		{"order id too long", orderWith(`"o-1"`, `"`+strings.Repeat("o", 65)+`"`), ReasonBadField},
		{"order id a number", orderWith(`"o-1"`, `1`), ReasonBadType},
		{"no customer", orderWith(`"customer":{"id":"c-1","tier":"gold"},`, ``), ReasonMissingField},
		{"customer a text", orderWith(`{"id":"c-1","tier":"gold"}`, `"c-1"`), ReasonBadType},
		{"bad customer id", orderWith(`c-1`, `c 1`), ReasonBadField},
		{"no tier", orderWith(`,"tier":"gold"`, ``), ReasonMissingField},
		{"unknown tier", orderWith(`gold`, `Gold`), ReasonUnknownTier},
		{"no currency", orderWith(`"currency":"EUR",`, ``), ReasonMissingField},
		{"unknown currency", orderWith(`EUR`, `EURO`), ReasonUnknownCurrency},
		{"currency in lower case", orderWith(`EUR`, `eur`), ReasonUnknownCurrency},
		{"no time", orderWith(`"placed_at":"2026-11-23T10:00:00Z",`, ``), ReasonMissingField},
		{"bad time", orderWith(`2026-11-23T10:00:00Z`, `yesterday`), ReasonBadField},
		{"day that is not", orderWith(`2026-11-23`, `2026-02-30`), ReasonBadField},
		{"endless time", orderWith(`10:00:00Z`, `10:00:00.`+strings.Repeat("0", 100)+`Z`), ReasonBadField},
		{"bad approval", orderWith(`"lines"`, `"approved_by":"a b","lines"`), ReasonBadField},
		{"no lines", orderWith(line, ``), ReasonMissingField},
		{"lines null", orderWith(`[`+line+`]`, `null`), ReasonMissingField},
		{"too many lines", orderWith(line, strings.Repeat(line+",", linesMax)+line), ReasonTooManyLines},
		{"no sku", orderWith(`"sku":"s-1",`, ``), ReasonMissingField},
		{"bad sku", orderWith(`s-1`, `s/1`), ReasonBadField},
		{"no price", orderWith(`"unit_price":"10.00",`, ``), ReasonMissingField},
		{"no tax class", orderWith(`,"tax":"standard"`, ``), ReasonMissingField},
		{"unknown tax class", orderWith(`standard`, `luxury`), ReasonUnknownTax},
		{"quantity 0", orderWith(`"quantity":2`, `"quantity":0`), ReasonBadQuantity},
		{"no quantity", orderWith(`"quantity":2,`, ``), ReasonBadQuantity},
		{"quantity negative", orderWith(`"quantity":2`, `"quantity":-2`), ReasonBadQuantity},
		{"quantity too large", orderWith(`"quantity":2`, `"quantity":1000001`), ReasonBadQuantity},
		{"quantity beyond 64 bits", orderWith(`"quantity":2`, `"quantity":99999999999999999999`), ReasonBadType},
		{"quantity a fraction", orderWith(`"quantity":2`, `"quantity":1.5`), ReasonBadType},
		{"quantity with exponent", orderWith(`"quantity":2`, `"quantity":1e1000000`), ReasonBadType},
		{"price a number", orderWith(`"10.00"`, `10.00`), ReasonBadType},
		{"price negative", orderWith(`10.00`, `-10.00`), ReasonBadAmount},
		{"price with exponent", orderWith(`10.00`, `1e1000000`), ReasonBadAmount},
		{"price with seven decimals", orderWith(`10.00`, `1.0000001`), ReasonBadAmount},
		{"price not a number", orderWith(`10.00`, `NaN`), ReasonBadAmount},
		{"line beyond the limit", orderWith(`"quantity":2,"unit_price":"10.00"`, `"quantity":1000000,"unit_price":"999999999999"`), ReasonBadAmount},
		{"nothing to pay", orderWith(`10.00`, `0.00`), ReasonBadAmount},
		{"rounds to nothing", orderWith(`"quantity":2,"unit_price":"10.00"`, `"quantity":1,"unit_price":"0.004999"`), ReasonBadAmount},
		{"lines beyond the limit together", orderWith(line, strings.Repeat(`{"sku":"s","quantity":10,"unit_price":"999999999999","tax":"zero"},`, 200)+line), ReasonBadAmount},
	}
}

func TestOrdersRejectWithNamedReason(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "orders", nil)
	if out, err := handle(handler, []byte(orderWith("", ""))); err != nil || out.Len() != 3 {
		t.Fatalf("the valid order gives %d entries, %v", out.Len(), err)
	}
	for _, test := range orderRejects() {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out, err := handle(handler, []byte(test.value))
			if got := reason(t, err); got != test.want {
				t.Fatalf("reason is %q, want %q: %v", got, test.want, err)
			}
			if out.Len() != 0 {
				t.Errorf("a reject left %d entries", out.Len())
			}
		})
	}
}

// A rejected record's texts must not shine through into the next record that uses the same scratch
// memory: members that the next one lacks are missing, not the last one's.
func TestOrdersForgetTheLastRecord(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "orders", nil)
	for range 100 {
		if _, err := handle(handler, []byte(orderWith(`"lines"`, `"approved_by":"x","lines"`))); err != nil {
			t.Fatal(err)
		}
		out, err := handle(handler, []byte(orderWith("", "")))
		if err != nil || bytes.Contains(out.Outs()[0].Value, []byte("approved_by")) {
			t.Fatalf("%v: %s", err, out.Outs()[0].Value)
		}
		_, err = handle(handler, []byte(orderWith(`,"unit_price":"10.00"`, ``)))
		if got := reason(t, err); got != ReasonMissingField {
			t.Fatalf("reason is %q", got)
		}
	}
}

func TestOrdersGoToReviewAboveTheLimitOnly(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "orders", map[string]any{"review": "review", "review_above": map[string]any{"EUR": "22.80"}})
	tests := []struct {
		name, value, output string
		entries             int
	}{
		{"at the limit", orderWith("", ""), "priced", 3}, // 2 * 10.00 - 5 % + 20 % = 22.80
		{"above the limit", orderWith("10.00", "10.01"), "review", 1},
		{"above the limit, approved", orderWith(`10.00","tax":"standard"}]`, `10.01","tax":"standard"}],"approved_by":"clerk"`), "priced", 3},
		{"in a currency without limit", orderWith("EUR", "JPY"), "priced", 3},
	}
	for _, test := range tests {
		out, err := handle(handler, []byte(test.value))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := out.Outs()[0].Output; got != test.output || out.Len() != test.entries {
			t.Errorf("%s: output %s with %d entries, want %s with %d", test.name, got, out.Len(), test.output, test.entries)
		}
	}
}

// An upstream producer that retries sends the same order at another offset, perhaps with its JSON
// laid out differently. Everything we make of it has to be the same, or the effect ledger would see
// a conflict where there is a duplicate.
func TestOrdersMakeTheSameOfTheSameOrderElsewhere(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "orders", nil)
	first, err := handle(handler, readFile(t, "testdata/orders/dinar.json"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := record([]byte(`{"schema_version":1,"order_id":"o-1003", "customer":{"id":"c-79","tier":"standard"},"currency":"KWD",` +
		`"placed_at":"2026-11-23T10:00:00.123456Z","lines":[{"sku":"\u0064ates","quantity":3,"unit_price":"1.0005","tax":"standard"}]}`))
	elsewhere.Source.Offset, elsewhere.Source.Partition = 1<<40, 7
	elsewhere.Timestamp = elsewhere.Timestamp.Add(1 << 40)
	elsewhere.Key = nil
	var second message.Batch
	if err := handler.Handle(elsewhere, &second); err != nil {
		t.Fatal(err)
	}
	if got, want := render(&second), render(first); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// drawOrder makes a valid order.
func drawOrder(t *rapid.T, orderID string) []byte {
	currency := rapid.SampledFrom([]string{"EUR", "JPY", "KWD", "USD"}).Draw(t, "currency")
	var lines []string
	for range rapid.IntRange(1, 8).Draw(t, "lines") {
		price := rapid.StringMatching(`(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?`).Draw(t, "price")
		lines = append(lines, fmt.Sprintf(`{"sku":"s%d","quantity":%d,"unit_price":"%s","tax":"%s"}`,
			rapid.IntRange(0, 99).Draw(t, "sku"), rapid.IntRange(1, 5000).Draw(t, "quantity"), price,
			rapid.SampledFrom([]string{"standard", "reduced", "zero"}).Draw(t, "tax")))
	}
	// One line that costs something keeps the total above zero.
	lines = append(lines, `{"sku":"base","quantity":1,"unit_price":"3","tax":"zero"}`)
	return fmt.Appendf(nil, `{"schema_version":1,"order_id":"%s","customer":{"id":"c-%d","tier":"%s"},"currency":"%s","placed_at":"2026-11-23T10:00:%02dZ","lines":[%s]}`,
		orderID, rapid.IntRange(0, 3).Draw(t, "customer"), rapid.SampledFrom([]string{"standard", "silver", "gold"}).Draw(t, "tier"),
		currency, rapid.IntRange(0, 59).Draw(t, "second"), strings.Join(lines, ","))
}

// Conservation: lines add up to the order, the order to the charge and to the journal, and the
// journal to zero; and the arithmetic is that of arbitrary-precision decimals.
func TestOrdersConserveMoney(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "orders", nil)
	rapid.Check(t, func(t *rapid.T) {
		value := drawOrder(t, "o-1")
		out, err := handle(handler, value)
		if err != nil {
			t.Fatalf("%v: %s", err, value)
		}
		event := parse[orderEvent](t, out.Outs()[0].Value)
		var gross, discount, net, tax []string
		for _, line := range event.Lines {
			gross, discount, net, tax = append(gross, line.Gross), append(discount, line.Discount), append(net, line.Net), append(tax, line.Tax)
		}
		for name, pair := range map[string][2]string{
			"gross":    {event.Gross, sum(t, gross...).RatString()},
			"discount": {event.Discount, sum(t, discount...).RatString()},
			"net":      {event.Net, sum(t, net...).RatString()},
			"tax":      {event.Tax, sum(t, tax...).RatString()},
			"price":    {event.Gross, sum(t, event.Net, event.Discount).RatString()},
			"total":    {event.Total, sum(t, event.Net, event.Tax).RatString()},
			"decimals": {event.Total, oracle(t, value).String()},
		} {
			if rational(t, pair[0]).Cmp(rational(t, pair[1])) != 0 {
				t.Fatalf("%s: %s is not %s: %s", name, pair[0], pair[1], out.Outs()[0].Value)
			}
		}
		j := parse[journal](t, out.Outs()[1].Value)
		checkJournal(t, j)
		if j.Postings[0].Account != "receivable" || j.Postings[0].Amount != event.Total {
			t.Fatalf("the customer owes %v, the order says %s", j.Postings[0], event.Total)
		}
		body := parse[charge](t, out.Effects()[0].Body)
		if body.Amount != event.Total || body.Placement != event.Placement {
			t.Fatalf("the charge is %+v, the order says %s", body, event.Total)
		}
	})
}

func checkJournal(t fataler, j journal) {
	var amounts []string
	for _, p := range j.Postings {
		amounts = append(amounts, p.Amount)
	}
	if total := sum(t, amounts...); total.Sign() != 0 {
		t.Fatalf("journal %s sums to %s: %v", j.ID, total.FloatString(6), j.Postings)
	}
}

// oracle prices an order once more, the plain way.
func oracle(t fataler, value []byte) decimal.Decimal {
	o := parse[order](t, value)
	digits, _ := minorDigits(o.Currency)
	discount := map[string]string{"standard": "0", "silver": "0.025", "gold": "0.05"}[o.Customer.Tier]
	rates := map[string]string{"standard": "0.2", "reduced": "0.1", "zero": "0"}
	total := decimal.Zero
	for _, line := range o.Lines {
		round := func(d decimal.Decimal) decimal.Decimal { return d.Round(int32(digits)) }
		gross := round(decimal.RequireFromString(line.UnitPrice).Mul(decimal.NewFromInt(line.Quantity)))
		net := gross.Sub(round(gross.Mul(decimal.RequireFromString(discount))))
		total = total.Add(net).Add(round(net.Mul(decimal.RequireFromString(rates[line.Tax]))))
	}
	return total
}
