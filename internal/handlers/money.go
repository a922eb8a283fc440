package handlers

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Money is exact: whole numbers of a currency's smallest unit in an int64, with 128 bits in between
// where a product needs them. Nothing here is a float, and nothing allocates.

const (
	priceDigitsMax  = 12          // and up to 12 digits before them: together below 2^63
	percentScale    = 100 * 10000 // a percentage has up to 4 decimals; this is the divisor of the fraction
	amountMax       = 1e15        // an order's total in smallest units; 1,000 lines of it stay below 2^63
	amountDigits    = 16          // of amountMax, decimals included
	decimalsMax     = 6
	percentDecimals = 4
)

// parseDecimal reads a plain decimal number: digits, and a point only if digits follow it. No sign,
// no exponent, no leading zeros, so the length of the text bounds the size of the number: 1e1000000
// never reaches arithmetic. It returns number * 10^decimals.
func parseDecimal(text string, digits, decimals int) (int64, error) {
	whole, fraction, point := strings.Cut(text, ".")
	switch {
	case whole == "" || (point && fraction == ""):
		return 0, fmt.Errorf("%s is not a plain decimal number such as 12.50", quote(text))
	case len(whole) > digits:
		return 0, fmt.Errorf("%s has more than %d digits before the point", quote(text), digits)
	case len(fraction) > decimals:
		return 0, fmt.Errorf("%s has more than %d decimals", quote(text), decimals)
	case len(whole) > 1 && whole[0] == '0':
		return 0, fmt.Errorf("%s has a leading zero", quote(text))
	}
	var number int64
	for _, part := range [2]string{whole, fraction} {
		for i := range len(part) {
			if part[i] < '0' || part[i] > '9' {
				return 0, fmt.Errorf("%s is not a plain decimal number such as 12.50", quote(text))
			}
			number = number*10 + int64(part[i]-'0')
		}
	}
	for range decimals - len(fraction) {
		number *= 10
	}
	return number, nil
}

// scaled is a*b/divisor for numbers that are not negative, rounded half up. ok is false where the
// result does not fit or exceeds amountMax.
func scaled(a, b, divisor int64) (result int64, ok bool) {
	by := uint64(divisor)                         //nolint:gosec // positive by contract
	high, low := bits.Mul64(uint64(a), uint64(b)) //nolint:gosec // not negative by contract
	low, carry := bits.Add64(low, by/2, 0)
	high += carry
	if high >= by {
		return 0, false // the quotient would not fit into 64 bits
	}
	quotient, _ := bits.Div64(high, low, by)
	if quotient > amountMax {
		return 0, false
	}
	return int64(quotient), true
}

// powerOfTen is 10^n for n from 0 to decimalsMax.
func powerOfTen(n int) int64 {
	power := int64(1)
	for range n {
		power *= 10
	}
	return power
}

// appendAmount appends an amount in smallest units as a decimal number with all the currency's
// decimals: -5 with 2 digits is -0.05.
func appendAmount(b []byte, amount int64, digits int) []byte {
	if amount < 0 {
		b = append(b, '-')
		amount = -amount
	}
	power := powerOfTen(digits)
	b = strconv.AppendInt(b, amount/power, 10)
	if digits == 0 {
		return b
	}
	b = append(b, '.')
	fraction := amount % power
	for power /= 10; power > 0; power /= 10 {
		b = append(b, byte('0'+fraction/power%10))
	}
	return b
}

// minorDigits gives the decimals of a currency after ISO 4217; funds, metals and test codes are
// not currencies to charge in.
func minorDigits(code string) (digits int, ok bool) {
	switch code {
	case "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV",
		"XAF", "XOF", "XPF":
		return 0, true
	case "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND":
		return 3, true
	case "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BMD",
		"BND", "BOB", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP",
		"CRC", "CUP", "CVE", "CZK", "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP",
		"GBP", "GEL", "GHS", "GIP", "GMD", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS",
		"INR", "IRR", "JMD", "KES", "KGS", "KHR", "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD",
		"LSL", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN",
		"MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR",
		"PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE",
		"SOS", "SRD", "SSP", "STN", "SYP", "SZL", "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD",
		"TZS", "UAH", "USD", "UYU", "UZS", "VED", "VES", "WST", "XCD", "XCG", "YER", "ZAR", "ZMW",
		"ZWG":
		return 2, true
	}
	return 0, false
}

// quote shows a sender's text in an error: printable, in quotes, cut at 40 bytes.
func quote(text string) string {
	const most = 40
	if len(text) > most {
		return strconv.QuoteToASCII(text[:most]) + "..."
	}
	return strconv.QuoteToASCII(text)
}
