package httplimit

import (
	"net/http"
	"strconv"
	"time"
)

// longest bounds what is read from a field, so that sums do not overflow.
const longest = 1 << 31 // seconds, 68 years

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date, which is
// compared with the server's own clock if it gave it. What has passed is 0. It reports
// false if there is nothing that can be read.
func retryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	text := h.Get("Retry-After")
	if text != "" && all(text, isDigit) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > longest {
			n = longest
		}
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(0, at.Sub(now)), longest*time.Second), true
}
