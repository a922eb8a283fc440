package handlers

import (
	"math"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

func TestParseDecimalAcceptsPlainNumbersOnly(t *testing.T) {
	t.Parallel()
	good := map[string]int64{
		"0": 0, "1": 1_000_000, "12.5": 12_500_000, "0.000001": 1, "999999999999.999999": 999_999_999_999_999_999,
		"0.10": 100_000,
	}
	for text, want := range good {
		if got, err := parseDecimal(text, priceDigitsMax, decimalsMax); err != nil || got != want {
			t.Errorf("%s gives %d, %v; want %d", text, got, err, want)
		}
	}
	bad := []string{
		"", ".", "1.", ".5", "-1", "+1", "1e5", "1e1000000", "1E-9", "01", "00", "1.0000001", "1000000000000",
		" 1", "1 ", "1,5", "1_000", "0x10", "NaN", "Inf", "１", "1.-5", strings.Repeat("9", 1<<20),
	}
	for _, text := range bad {
		if got, err := parseDecimal(text, priceDigitsMax, decimalsMax); err == nil {
			t.Errorf("%.40q gives %d", text, got)
		}
	}
}

// The integers must give what arbitrary-precision decimals give, to the last unit.
func TestScaledAgreesWithDecimals(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64Range(0, 1e18).Draw(t, "a")
		b := rapid.Int64Range(0, 1e6).Draw(t, "b")
		places := rapid.Int32Range(0, 6).Draw(t, "places")
		want := decimal.NewFromInt(a).Mul(decimal.NewFromInt(b)).Shift(-places).Round(0)
		got, ok := scaled(a, b, powerOfTen(int(places)))
		if fits := want.LessThanOrEqual(decimal.NewFromInt(amountMax)); ok != fits {
			t.Fatalf("%d * %d / 10^%d = %s: fits is %v, got %v", a, b, places, want, fits, ok)
		}
		if ok && !want.Equal(decimal.NewFromInt(got)) {
			t.Fatalf("%d * %d / 10^%d is %d, want %s", a, b, places, got, want)
		}
	})
}

func TestScaledRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	if _, ok := scaled(math.MaxInt64, math.MaxInt64, 1); ok {
		t.Error("2^126 fits")
	}
	if _, ok := scaled(amountMax+1, 1, 1); ok {
		t.Error("amountMax+1 fits")
	}
	if got, ok := scaled(amountMax, 1, 1); !ok || got != amountMax {
		t.Error("amountMax does not fit")
	}
}

func TestAppendAmountShowsAllDecimals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		amount int64
		digits int
		want   string
	}{
		{0, 0, "0"},
		{0, 2, "0.00"},
		{5, 2, "0.05"},
		{-5, 2, "-0.05"},
		{-1234, 3, "-1.234"},
		{100, 2, "1.00"},
		{1e15, 0, "1000000000000000"},
		{-1e15, 3, "-1000000000000.000"},
	}
	for _, test := range tests {
		if got := string(appendAmount(nil, test.amount, test.digits)); got != test.want {
			t.Errorf("%d with %d digits is %s, want %s", test.amount, test.digits, got, test.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		amount, digits := rapid.Int64Range(-2e15, 2e15).Draw(t, "amount"), rapid.IntRange(0, 3).Draw(t, "digits")
		if got, want := string(appendAmount(nil, amount, digits)), decimal.New(amount, int32(-digits)).StringFixed(int32(digits)); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func TestMinorDigitsKnowsTheUnusualOnes(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int{"EUR": 2, "JPY": 0, "KWD": 3, "ISK": 0, "HUF": 2, "CLP": 0, "TND": 3, "MRU": 2} {
		if got, known := minorDigits(code); !known || got != want {
			t.Errorf("%s has %d decimals (known %v), want %d", code, got, known, want)
		}
	}
	for _, code := range []string{"", "eur", "XXX", "XTS", "XAU", "DEM", "EURO", "EU"} {
		if _, known := minorDigits(code); known {
			t.Errorf("%q is accepted", code)
		}
	}
}
