package httplimit

import (
	"net/http"
	"net/netip"
	"time"
)

// OutcomeOf is the judgement of a request by the middleware Shed.
var OutcomeOf = outcomeOf

// RetryAfter reads the field of that name.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) { return retryAfter(h, now) }

// Exhausted reads the lines of RateLimit.
func Exhausted(lines ...string) time.Duration { return exhausted(lines) }

// ForwardedFor reads one element of Forwarded.
func ForwardedFor(element string) (netip.Addr, bool) {
	n, ok := forwardedFor(element)
	return n.Addr, ok
}

// CutLastElement cuts a Forwarded field.
var CutLastElement = cutLastElement

// Paused returns the number of keys that are remembered as paused.
func (t *Transport) Paused() int { return t.pauses.Len() }

// Texts returns how many members of RateLimit-Policy are remembered.
func (l *Limits) Texts() int {
	n := 0
	for _, p := range l.policies {
		p.texts.mu.Lock()
		n += len(p.texts.known)
		p.texts.mu.Unlock()
	}
	return n
}
