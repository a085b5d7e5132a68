package httplimit

import (
	"math"
	"math/bits"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// maxInteger is the largest Integer of RFC 9651, section 3.3.1.
const maxInteger = 999_999_999_999_999

// quote writes a String of RFC 9651, section 4.1.6, if s can be written as one.
func quote(s string) (string, bool) {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return "", false
		}
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return string(append(b, '"')), true
}

// policyMember writes the member of RateLimit-Policy for a limit. The quota is the burst
// and the window the time in which it refills or, if that is less than a second, the
// quota is what flows in within one. The zero Limit has none.
func policyMember(name string, l ratelimit.Limit) string {
	n, d, burst := l.Values()
	if n < 1 {
		return name + ";q=0"
	}
	refill, rest := mulDiv(burst, int64(d), n)
	if rest > 0 {
		refill++
	}
	q, w := burst, seconds(time.Duration(refill))
	if refill < int64(time.Second) {
		q, _ = mulDiv(n, int64(time.Second), int64(d))
	}
	return name + ";q=" + integer(q) + ";w=" + integer(w)
}

// appendLimits writes the member of RateLimit. A next of zero is left out; it is at most
// the 36 years in which a burst refills.
func appendLimits(b []byte, name string, remaining, next int64) []byte {
	b = append(b, name...)
	b = append(b, ";r="...)
	b = strconv.AppendInt(b, min(remaining, maxInteger), 10)
	if next > 0 {
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, next, 10)
	}
	return b
}

func integer(n int64) string { return strconv.FormatInt(min(n, maxInteger), 10) }

// untilNextUnit returns the seconds, rounded up, until one more whole unit is there
// than now; zero if none is missing. All units are there after ResetAfter; before
// that flow in those that are missing but the next. A limit that is kept a little
// too slow makes a difference over many units, but none makes it longer than one
// interval. Only a debt does, and that the limit itself knows best.
func untilNextUnit(a *ask, d *ratelimit.Decision) int64 {
	missing := d.Limit - d.Remaining
	n, per, _ := a.limit.Values()
	if missing == 0 || n < 1 {
		return 0
	}
	others, _ := mulDiv(missing-1, int64(per), n)
	interval := int64(per)/n + 1
	next := int64(d.ResetAfter) - others
	if next > interval {
		next = interval
		if d.Remaining == 0 {
			next = max(next, int64(a.policy.Limiter.Peek(a.key, 1).RetryAfter))
		}
	}
	return max(1, seconds(time.Duration(next)))
}

// mulDiv returns a*b/c, rounded down, and the remainder. It fits if all are of one limit.
// They are not if the limit has changed since the decision: then the largest int64 will do.
func mulDiv(a, b, c int64) (q, rest int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64, 0
	}
	quo, rem := bits.Div64(hi, lo, uint64(c))
	return int64(quo), int64(rem)
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
