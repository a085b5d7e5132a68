package httplimit

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// pauses remembers until when keys are to be left alone. The zero value is ready.
type pauses struct {
	mu   sync.Mutex
	ends map[string]time.Time // guarded by mu; at most maxPauses
}

const maxPauses = 1024

// left returns how long a key is still to be left alone.
func (p *pauses) left(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	end, ok := p.ends[key]
	if !ok {
		return 0
	}
	left := time.Until(end)
	if left <= 0 {
		delete(p.ends, key)
	}
	return left
}

// until makes a key be left alone for d from now, or longer if it is already.
func (p *pauses) until(key string, now time.Time, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := now.Add(d)
	if old, ok := p.ends[key]; ok {
		if end.After(old) {
			p.ends[key] = end
		}
		return
	}
	if p.ends == nil {
		p.ends = map[string]time.Time{}
	}
	if len(p.ends) >= maxPauses {
		p.forget(now)
	}
	p.ends[key] = end
}

// forget makes room: for what is over, or else of what will be first.
func (p *pauses) forget(now time.Time) {
	var first string
	var soonest time.Time
	for key, end := range p.ends {
		if !end.After(now) {
			delete(p.ends, key)
		} else if soonest.IsZero() || end.Before(soonest) {
			first, soonest = key, end
		}
	}
	if len(p.ends) >= maxPauses {
		delete(p.ends, first)
	}
}

// longest bounds what is read from a field, so that sums do not overflow.
const longest = 1 << 31 // seconds, 68 years

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date, which is
// compared with the server's own clock if it gave it. What cannot be read, and what has
// passed, is 0.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if text != "" && all(text, isDigit) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > longest {
			n = longest
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(0, at.Sub(now)), longest*time.Second)
}
