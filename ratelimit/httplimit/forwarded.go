package httplimit

import (
	"strings"
)

// cutLastElement cuts s around its last comma that is not in a quoted string.
//
// It looks from the right, because what is on the left was written by a client. Read
// from the left, an unbalanced quote of the client would swallow the comma, and with it
// the element that the proxy appended. Read from the right, the elements of proxies are
// whole, and the walk is over before it comes to what is not.
func cutLastElement(s string) (rest, last string, more bool) {
	quoted := false
	for i := len(s) - 1; i >= 0; i-- {
		switch s[i] {
		case ',':
			if !quoted {
				return s[:i], s[i+1:], true
			}
		case '"':
			if quoted && escaped(s, i) {
				continue
			}
			quoted = !quoted
		}
	}
	return "", s, false
}

// escaped reports whether s[i] is behind an odd number of backslashes.
func escaped(s string, i int) bool {
	n := 0
	for n < i && s[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// forwardedFor returns the address of the parameter "for" of one element of RFC 7239,
// section 4. It reports false if there is none, if it is not an address, or if the
// element is not well-formed.
func forwardedFor(element string) (addr node, ok bool) {
	s := strings.Trim(element, " \t")
	for {
		name, rest, found := strings.Cut(s, "=")
		if !found || name == "" || !all(name, isTokenChar) {
			return node{}, false
		}
		value, rest, valid := cutValue(rest)
		if !valid {
			return node{}, false
		}
		if strings.EqualFold(name, "for") {
			if addr.IsValid() {
				return node{}, false // twice
			}
			if addr, valid = parseNode(value); !valid {
				return node{}, false
			}
		}
		// Spaces around the semicolon are not in the grammar, but are written.
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return addr, addr.IsValid()
		}
		if rest[0] != ';' {
			return node{}, false
		}
		s = strings.TrimLeft(rest[1:], " \t")
	}
}

// cutValue cuts the token or quoted string off the front of s (RFC 9110, section 5.6).
// A token may be an IPv6 address or have a port, which should be quoted and often is not.
func cutValue(s string) (value, rest string, ok bool) {
	if s == "" {
		return "", "", false
	}
	if s[0] != '"' {
		n := 0
		for n < len(s) && (isTokenChar(s[n]) || s[n] == ':' || s[n] == '[' || s[n] == ']') {
			n++
		}
		return s[:n], s[n:], n > 0
	}
	var unescaped []byte
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return string(unescaped), s[i+1:], true
		case c == '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			unescaped = append(unescaped, s[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", "", false
		default:
			unescaped = append(unescaped, c)
		}
	}
	return "", "", false
}

func isTokenChar(c byte) bool {
	return isAlpha(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
