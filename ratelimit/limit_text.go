package ratelimit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// units are the periods of the text form, from the longest. The first name of each
// is the one that String writes.
var units = [...]struct {
	period time.Duration
	names  []string
}{
	{24 * time.Hour, []string{"d", "day"}},
	{time.Hour, []string{"h", "hour"}},
	{time.Minute, []string{"m", "min", "minute"}},
	{time.Second, []string{"s", "sec", "second"}},
	{time.Millisecond, []string{"ms"}},
	{time.Microsecond, []string{"us", "µs"}},
	{time.Nanosecond, []string{"ns"}},
}

// ParseLimit reads a limit such as
//
//	100/s              100 units a second, with a burst of 100
//	100/s burst 200    the same rate, with a burst of 200
//	5000/h   20/10s   1/day burst 3
//
// that is a whole number, a slash, a period, and optionally the word burst and
// a whole number. A period is an optional whole number and one of ns, us (or µs),
// ms, s (sec, second), m (min, minute), h (hour) and d (day, always 24 hours). Spaces
// around the parts do not matter; signs, fractions and anything else are refused.
//
// Returns an error that wraps ErrInvalidLimit when the text has another form or
// describes a limit that cannot be kept.
func ParseLimit(text string) (Limit, error) {
	l, expected := parseLimit(text)
	if expected != "" {
		return Limit{}, fmt.Errorf("%w: the text is %.80q, expected %s", ErrInvalidLimit, text, expected)
	}
	if err := l.check(); err != nil {
		return Limit{}, err
	}
	return l, nil
}

// parseLimit returns what was expected where the text is wrong.
func parseLimit(text string) (l Limit, expected string) {
	rate, burst, hasBurst := strings.Cut(text, "burst")
	count, period, ok := strings.Cut(rate, "/")
	if !ok {
		return l, `a form such as "100/s" or "100/s burst 200"`
	}
	n, ok := parseCount(strings.TrimSpace(count))
	if !ok {
		return l, "a whole number before the slash"
	}
	d, ok := parsePeriod(strings.TrimSpace(period))
	if !ok {
		return l, "a period such as s, 10s, m, h or day after the slash"
	}
	l = Per(n, d)
	if hasBurst {
		b, ok := parseCount(strings.TrimSpace(burst))
		if !ok {
			return l, "a whole number after the word burst"
		}
		l = l.Burst(b)
	}
	return l, ""
}

// parseCount reads decimal digits, and nothing else.
func parseCount(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}

func parsePeriod(s string) (time.Duration, bool) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	count, name := int64(1), s[digits:]
	if digits > 0 {
		var ok bool
		if count, ok = parseCount(s[:digits]); !ok {
			return 0, false
		}
	}
	for _, u := range units {
		if slices.Contains(u.names, name) {
			total := mulDiv(count, int64(u.period), 1)
			return time.Duration(total), total/int64(u.period) == count
		}
	}
	return 0, false
}

// String returns the text that ParseLimit reads as the same limit. The burst is left
// out where it is what Per chose.
func (l Limit) String() string { return string(l.append(nil)) }

// AppendText implements encoding.TextAppender: it appends String. Returns an error
// that wraps ErrInvalidLimit for a limit that ParseLimit would refuse.
func (l Limit) AppendText(b []byte) ([]byte, error) {
	if err := l.check(); err != nil {
		return b, err
	}
	return l.append(b), nil
}

// MarshalText implements encoding.TextMarshaler as AppendText does, so that a limit
// is a string in JSON.
func (l Limit) MarshalText() ([]byte, error) { return l.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler: it is ParseLimit, and leaves l
// alone when that fails. With it a limit can be read by encoding/json and
// flag.TextVar.
func (l *Limit) UnmarshalText(text []byte) error {
	parsed, err := ParseLimit(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}

func (l Limit) append(b []byte) []byte {
	b = strconv.AppendInt(b, l.n, 10)
	b = append(b, '/')
	for _, u := range units {
		if l.per%u.period != 0 {
			continue
		}
		if count := l.per / u.period; count != 1 {
			b = strconv.AppendInt(b, int64(count), 10)
		}
		b = append(b, u.names[0]...)
		break
	}
	if l.burst != l.n {
		b = append(b, " burst "...)
		b = strconv.AppendInt(b, l.burst, 10)
	}
	return b
}
