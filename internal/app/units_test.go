package app

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDurationReadsDaysAndPrintsShort(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		std     time.Duration
		printed string
	}{
		"14d":       {14 * day, "14d"},
		"1d":        {day, "24h"},
		"2d12h":     {60 * time.Hour, "60h"},
		"-48h":      {-2 * day, "-48h"},
		"24h":       {day, "24h"},
		"48h":       {2 * day, "2d"},
		"60s":       {time.Minute, "1m"},
		"90s":       {90 * time.Second, "1m30s"},
		"1h0m5s":    {time.Hour + 5*time.Second, "1h0m5s"},
		"10m":       {10 * time.Minute, "10m"},
		"5ms":       {5 * time.Millisecond, "5ms"},
		"1500us":    {1500 * time.Microsecond, "1.5ms"},
		"0":         {0, "0s"},
		"0s":        {0, "0s"},
		"0d":        {0, "0s"},
		"-5ms":      {-5 * time.Millisecond, "-5ms"},
		"106751d":   {106751 * day, "106751d"},
		"106750d1h": {106750*day + time.Hour, "2562001h"},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want.std || d.String() != want.printed {
			t.Errorf("%s: got %s, %v, want %s", text, d, err, want.printed)
		}
	}
	for _, text := range []string{"", "20", "1.5", "d", "xd", "1d2d", "soon", "5 s", "0x1d", "1_0d", "nand", "infd", "106752d", "-999999d", "106751d24h", "1e300d", "1d5", "1.5d", "-2d", "2d-3h", "99999999999999999999d"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %s, want an error", text, d)
		}
	}
}

func TestByteSizeReadsUnits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		size    ByteSize
		printed string
	}{
		"8MiB": {8 << 20, "8MiB"},
		"8 MB": {8e6, "8000000"},
		"512":  {512, "512"},
		"1024": {1024, "1KiB"},
		"1B":   {1, "1"},
		"3kB":  {3000, "3000"},
		"3KB":  {3000, "3000"},
		"1GiB": {1 << 30, "1GiB"},
		"2TiB": {2 << 40, "2TiB"},
		"0":    {0, "0"},
		"-1":   {-1, "-1"},
	} {
		var s ByteSize
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want.size || s.String() != want.printed {
			t.Errorf("%s: got %s, %v, want %s", text, s, err, want.printed)
		}
	}
	for _, text := range []string{"", "MiB", "8Mi", "8mib", "1.5MiB", "8XB", "9999999TiB", "-9999999TiB", "99999999999999999999", "0x10"} {
		var s ByteSize
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %s, want an error", text, s)
		}
	}
}

// What is printed is read back to the same: `config print` makes a file that loads.
func TestUnitsReadBackWhatTheyPrint(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64().Draw(t, "duration"))
		var readDuration Duration
		if err := readDuration.UnmarshalText([]byte(d.String())); err != nil || readDuration != d {
			t.Errorf("%d prints as %s, which reads as %d, %v", d, d, readDuration, err)
		}
		s := ByteSize(rapid.Int64().Draw(t, "size"))
		var readSize ByteSize
		if err := readSize.UnmarshalText([]byte(s.String())); err != nil || readSize != s {
			t.Errorf("%d prints as %s, which reads as %d, %v", s, s, readSize, err)
		}
	})
}
