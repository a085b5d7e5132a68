package httpcoalesce

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseDirectives reads Cache-Control lines (RFC 9111, section 5.2):
//
//	#( token [ "=" ( token / quoted-string ) ] )
//
// It calls visit for each directive, with the name in lower case and the value
// without its quotes, and returns false at the first violation of the grammar. Empty
// elements are none (RFC 9110, section 5.6.1.2).
func parseDirectives(lines []string, visit func(name, value string, hasValue bool)) bool {
	for _, s := range lines {
		for {
			s = strings.TrimLeft(s, " \t,")
			if s == "" {
				break
			}
			name := leadingToken(s)
			if name == "" {
				return false
			}
			s = s[len(name):]
			value, hasValue := "", false
			if strings.HasPrefix(s, "=") {
				n := 0
				if value, n = leadingValue(s[1:]); n == 0 {
					return false
				}
				s, hasValue = s[1+n:], true
			}
			if s = strings.TrimLeft(s, " \t"); s != "" && s[0] != ',' {
				return false
			}
			visit(strings.ToLower(name), value, hasValue)
		}
	}
	return true
}

// leadingValue reads a token or a quoted string and returns it, and its length in s.
// The length is 0 if there is none.
func leadingValue(s string) (value string, n int) {
	if !strings.HasPrefix(s, `"`) {
		value = leadingToken(s)
		return value, len(value)
	}
	var unescaped []byte
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return string(unescaped), i + 1
		case c == '\\' && i+1 < len(s) && isText(s[i+1]):
			i++
			unescaped = append(unescaped, s[i])
		case c == '\\' || !isText(c):
			return "", 0
		default:
			unescaped = append(unescaped, c)
		}
	}
	return "", 0
}

// isText says whether c may be in a quoted string (RFC 9110, section 5.6.4).
func isText(c byte) bool { return c == '\t' || c >= ' ' && c != 0x7f }

func leadingToken(s string) string {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return s[:i]
		}
	}
	return s
}

func isToken(s string) bool { return s != "" && leadingToken(s) == s }

// isTokenByte is tchar of RFC 9110, section 5.6.2.
func isTokenByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// seconds reads delta-seconds (RFC 9111, section 1.2.2): what is too large counts as
// 2^31. A value that is none counts as 0, for section 4.2.1 asks to take invalid
// freshness for staleness.
func seconds(s string) time.Duration {
	const most = 1 << 31
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > most {
		n = most
	}
	return time.Duration(n) * time.Second
}

// parseVary returns the names in Vary, canonical, sorted and each once. It returns
// false if there is a "*" among them or something that is no name: then nobody
// knows which requests the response is for.
func parseVary(lines []string) (names []string, ok bool) {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.Trim(name, " \t")
			if name == "" {
				continue
			}
			if name == "*" || !isToken(name) {
				return nil, false
			}
			names = append(names, http.CanonicalHeaderKey(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}
