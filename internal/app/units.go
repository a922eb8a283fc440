package app

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// What is wrong with a text is said without the text: the caller names it.
var (
	errNoDuration = errors.New("not a duration, want for instance 500ms, 20s, 1h30m or 14d")
	errTooLong    = errors.New("more than 292 years")
	errNoByteSize = errors.New("not a size in bytes, want for instance 8MiB, 500kB or 4096")
	errTooLarge   = errors.New("more than 8 EiB")
)

const day = 24 * time.Hour

// Duration is a time.Duration that is written with units from days to nanoseconds: 14d, 1h30m, 5ms.
type Duration time.Duration

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// milliseconds gives the number that Kafka's settings take.
func (d Duration) milliseconds() string { return strconv.FormatInt(d.Std().Milliseconds(), 10) }

// String gives the shortest form that UnmarshalText reads back: whole days, from two on, as d, and
// no trailing zero units.
func (d Duration) String() string {
	std := time.Duration(d)
	if std >= 2*day && std%day == 0 {
		return strconv.FormatInt(int64(std/day), 10) + "d"
	}
	text := std.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText gives what String gives.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads; a whole number of days may stand before it, as
// in 14d or 2d12h. A number without a unit is refused, but for 0.
func (d *Duration) UnmarshalText(text []byte) error {
	rest, days := string(text), uint64(0)
	if number, tail, found := strings.Cut(rest, "d"); found {
		var err error
		if days, err = strconv.ParseUint(number, 10, 64); err != nil || strings.HasPrefix(tail, "-") {
			return errNoDuration
		}
		rest = cmp.Or(tail, "0")
	}
	std, err := time.ParseDuration(rest)
	if err != nil {
		if _, err := strconv.ParseFloat(rest, 64); err == nil {
			return fmt.Errorf("no unit, want for instance %ss", text)
		}
		return errNoDuration
	}
	if days > uint64(math.MaxInt64/day) || std > math.MaxInt64-time.Duration(days)*day {
		return errTooLong
	}
	*d = Duration(time.Duration(days)*day + std)
	return nil
}

// ByteSize counts bytes and is written with units: 8MiB, 500kB, 4096.
type ByteSize int64

// byteUnits stand from large to small, the binary before the decimal.
var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"KB", 1e3},
	{"B", 1},
}

// bytes gives the number that Kafka's settings take.
func (s ByteSize) bytes() string { return strconv.FormatInt(int64(s), 10) }

// String gives the number of the largest binary unit that divides it, or bare bytes.
func (s ByteSize) String() string {
	for _, unit := range byteUnits[:4] {
		if s != 0 && int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText gives what String gives.
func (s ByteSize) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number of bytes or of a unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.
func (s *ByteSize) UnmarshalText(text []byte) error {
	number, factor := string(text), int64(1)
	for _, unit := range byteUnits {
		if head, found := strings.CutSuffix(number, unit.name); found {
			number, factor = strings.TrimSuffix(head, " "), unit.bytes
			break
		}
	}
	count, err := strconv.ParseInt(number, 10, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && (count > math.MaxInt64/factor || count < math.MinInt64/factor) {
		return errTooLarge
	}
	if err != nil {
		return errNoByteSize
	}
	*s = ByteSize(count * factor)
	return nil
}

// ParseMoment reads a time, a day in the zone of now, or how long before now. The error is the second half of a
// sentence that begins with what was read.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	var ago Duration
	if err := ago.UnmarshalText([]byte(text)); err == nil && ago >= 0 {
		return now.Add(-ago.Std()), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if moment, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return moment, nil
		}
	}
	return time.Time{}, fmt.Errorf("is %q, want a time such as 2026-11-23T10:00:00Z, a day such as 2026-11-23, or how long ago, such as 2h or 14d", text)
}
