package httplimit

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// exhausted reads the lines of RateLimit and returns the time until the last of the
// limits of which nothing is left has something again, 0 if there is none. A field that
// is not well-formed is ignored as a whole, as RFC 9651 demands; so are the fields of
// older drafts, which look different.
func exhausted(lines []string) time.Duration {
	limits, ok := parseLimits(strings.Join(lines, ","))
	if !ok {
		return 0
	}
	var wait int64
	for _, l := range limits {
		if l.remaining == 0 {
			wait = max(wait, l.reset)
		}
	}
	return time.Duration(min(wait, longest)) * time.Second
}

// limitMember is one member of RateLimit. A number that is not there is -1.
type limitMember struct {
	name             string
	remaining, reset int64
}

// parseLimits reads a List of Strings with parameters (RFC 9651, section 4.2.1), as far
// as the draft needs it.
func parseLimits(s string) ([]limitMember, bool) {
	p := &fieldParser{strings.Trim(s, " ")}
	var out []limitMember
	for {
		m := limitMember{remaining: -1, reset: -1}
		var ok bool
		if m.name, ok = p.str(); !ok || !p.parameters(&m) {
			return nil, false
		}
		out = append(out, m)
		p.skip(" \t")
		if p.rest == "" {
			return out, true
		}
		if !p.accept(',') {
			return nil, false
		}
		p.skip(" \t")
	}
}

// fieldParser reads a structured field from the left.
type fieldParser struct{ rest string }

func (p *fieldParser) skip(cutset string) { p.rest = strings.TrimLeft(p.rest, cutset) }

func (p *fieldParser) accept(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// take cuts off the longest front of characters that are allowed.
func (p *fieldParser) take(allowed func(byte) bool) string {
	n := 0
	for n < len(p.rest) && allowed(p.rest[n]) {
		n++
	}
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	return taken
}

// parameters is section 4.2.3.2. The last of equal keys counts.
func (p *fieldParser) parameters(m *limitMember) bool {
	for p.accept(';') {
		p.skip(" ")
		key := p.take(isKeyChar)
		if key == "" || key[0] != '*' && (key[0] < 'a' || key[0] > 'z') {
			return false
		}
		number := int64(-1)
		if p.accept('=') {
			var ok bool
			if number, ok = p.bareItem(); !ok {
				return false
			}
		}
		switch key {
		case "r":
			m.remaining = number
		case "t":
			m.reset = number
		}
	}
	return true
}

// bareItem is section 4.2.3.1. The number is that of an Integer that is not negative,
// and -1 of anything else.
func (p *fieldParser) bareItem() (number int64, ok bool) {
	if p.rest == "" {
		return 0, false
	}
	switch c := p.rest[0]; {
	case c == '-' || isDigit(c):
		return p.number()
	case c == '"':
		_, ok = p.str()
		return -1, ok
	case c == '?':
		p.accept('?')
		return -1, p.accept('0') || p.accept('1')
	case c == ':':
		p.accept(':')
		p.take(func(c byte) bool { return isAlpha(c) || isDigit(c) || c == '+' || c == '/' || c == '=' })
		return -1, p.accept(':')
	case c == '@':
		p.accept('@')
		before := p.rest
		_, ok = p.number()
		return -1, ok && strings.IndexByte(before[:len(before)-len(p.rest)], '.') < 0
	case c == '%':
		p.accept('%')
		return -1, p.displayString()
	case c == '*' || isAlpha(c):
		p.take(func(c byte) bool { return isTokenChar(c) || c == ':' || c == '/' })
		return -1, true
	default:
		return 0, false
	}
}

// number is section 4.2.4: an Integer of at most 15 digits, or a Decimal.
func (p *fieldParser) number() (int64, bool) {
	negative := p.accept('-')
	digits := p.take(isDigit)
	if digits == "" || len(digits) > 15 {
		return 0, false
	}
	if p.accept('.') {
		fraction := p.take(isDigit)
		return -1, len(digits) <= 12 && len(fraction) >= 1 && len(fraction) <= 3
	}
	if negative {
		return -1, true
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}

// str is section 4.2.5.
func (p *fieldParser) str() (string, bool) {
	if !p.accept('"') {
		return "", false
	}
	var out []byte
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '"':
			p.rest = p.rest[i+1:]
			return string(out), true
		case c == '\\':
			if i++; i == len(p.rest) || p.rest[i] != '"' && p.rest[i] != '\\' {
				return "", false
			}
			c = p.rest[i]
		case c < ' ' || c > '~':
			return "", false
		}
		out = append(out, c)
	}
	return "", false
}

// displayString is section 4.2.10. Its text is not needed.
func (p *fieldParser) displayString() bool {
	if !p.accept('"') {
		return false
	}
	var text []byte
	for p.rest != "" {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '"':
			return utf8.Valid(text)
		case c < ' ' || c > '~':
			return false
		case c == '%':
			if len(p.rest) < 2 || p.rest[:2] != strings.ToLower(p.rest[:2]) {
				return false
			}
			b, err := hex.DecodeString(p.rest[:2])
			if err != nil {
				return false
			}
			p.rest = p.rest[2:]
			text = append(text, b...)
		default:
			text = append(text, c)
		}
	}
	return false
}

func isKeyChar(c byte) bool {
	return 'a' <= c && c <= 'z' || isDigit(c) || c == '_' || c == '-' || c == '.' || c == '*'
}

func isAlpha(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
