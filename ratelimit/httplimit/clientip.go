package httplimit

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// ClientIPOptions configure [ClientIP]. The zero value trusts nobody: the client is the
// peer of the connection, whatever headers say.
type ClientIPOptions struct {
	// Trusted are the addresses of the proxies in front of the server. List the
	// proxies, and not the network that they are in: whoever has a trusted address can
	// choose any key. None means that there are no proxies.
	Trusted []netip.Prefix

	// Header is the request header in which the proxies say for whom they ask. Empty
	// means "X-Forwarded-For". "Forwarded" is read as RFC 7239 says, any other as a
	// list of addresses, as X-Forwarded-For or X-Real-Ip are. Name the one that the
	// proxies write: one that they pass on unseen is written by clients.
	Header string

	// IPv6Prefix is the number of bits of an IPv6 address that make a client, 1 to
	// 128. Zero means 64: it is what one subscriber gets at least, and he can use
	// every address in it. Some networks hand out a whole /56 or /48.
	IPv6Prefix int
}

// ClientIP returns a KeyFunc whose key is the address of the client: "192.0.2.1", or
// the prefix of an IPv6 address, "2001:db8:1:2::/64". IPv4 addresses that are written
// as IPv6 ("::ffff:192.0.2.1") are IPv4 addresses, and zones are dropped.
//
// The header is a chain: each proxy appends the address that it was called from. So it
// is read from the right, beginning at the peer of the connection, and only as long as
// the address that was reached is a trusted one; the first that is not is the client. All
// to the left of it was written by the client, and has no influence. Several header
// lines are one list. Entries may have ports, brackets and quotes.
//
// An entry that is no address ("unknown", "_hidden", nothing, or anything malformed)
// ends the walk: the key is that of the trusted proxy that wrote it. Those for whom a
// proxy gives no address share a limit, and none of them gets a fresh one. If all entries
// are trusted the leftmost counts.
//
// The KeyFunc returns an error that wraps [ErrNoKey] if the peer's address is not an IP
// address, as on a unix socket. ClientIP returns an error that names the option when a
// prefix is not valid or the IPv6Prefix out of range. The key of
// an IPv4 address costs its parsing and no allocation, that of an IPv6 address one.
func ClientIP(o ClientIPOptions) (KeyFunc, error) {
	c := clientIP{header: "X-Forwarded-For", bits: 64}
	for i, p := range o.Trusted {
		if !p.IsValid() {
			return nil, fmt.Errorf("httplimit: ClientIPOptions.Trusted[%d] is %v, expected a valid prefix", i, p)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		c.trusted = append(c.trusted, p)
	}
	if o.Header != "" {
		c.header = http.CanonicalHeaderKey(o.Header)
	}
	c.forwarded = c.header == "Forwarded"
	if o.IPv6Prefix < 0 || o.IPv6Prefix > 128 {
		return nil, fmt.Errorf("httplimit: ClientIPOptions.IPv6Prefix is %d, expected 0 to 128", o.IPv6Prefix)
	}
	if o.IPv6Prefix > 0 {
		c.bits = o.IPv6Prefix
	}
	return c.key, nil
}

// clientIP is immutable.
type clientIP struct {
	trusted   []netip.Prefix
	header    string // canonical
	forwarded bool
	bits      int
}

func (c *clientIP) key(r *http.Request) (string, error) {
	peer, ok := parseNode(r.RemoteAddr)
	if !ok {
		return "", fmt.Errorf("%w: the peer's address is no IP address", ErrNoKey)
	}
	client := peer
	if c.trusts(peer.Addr) {
		client = c.walk(peer, r.Header[c.header])
	}
	if client.text != "" {
		return client.text, nil
	}
	var buf [64]byte
	if client.Is4() || c.bits == 128 {
		return string(client.AppendTo(buf[:0])), nil
	}
	prefix, err := client.Prefix(c.bits)
	if err != nil {
		return "", err
	}
	return string(prefix.AppendTo(buf[:0])), nil
}

func (c *clientIP) trusts(a netip.Addr) bool {
	for _, p := range c.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// walk goes from a trusted address to the left, to the first that is not trusted.
func (c *clientIP) walk(at node, lines []string) node {
	for i := len(lines) - 1; i >= 0; i-- {
		// Every line has at least one entry; an empty one ends the walk.
		for rest, more := lines[i], true; more; {
			var (
				entry string
				next  node
				ok    bool
			)
			if c.forwarded {
				rest, entry, more = cutLastElement(rest)
				next, ok = forwardedFor(entry)
			} else {
				rest, entry, more = cutLast(rest)
				next, ok = parseNode(strings.Trim(entry, " \t"))
			}
			if !ok {
				return at
			}
			if at = next; !c.trusts(at.Addr) {
				return at
			}
		}
	}
	return at
}

// cutLast cuts s around its last comma. more reports that there was one.
func cutLast(s string) (rest, last string, more bool) {
	i := strings.LastIndexByte(s, ',')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// node is an address, and its text if that is how it was written: IPv4 has one form.
type node struct {
	netip.Addr
	text string
}

// parseNode reads an address with or without a port, and with or without brackets. It
// takes the address off its zone, which tells nothing to other machines, and which an
// adversary could vary.
func parseNode(s string) (node, bool) {
	host := s
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 || !isPort(s[end+1:]) {
			return node{}, false
		}
		host = s[1:end]
		if strings.IndexByte(host, ':') < 0 {
			return node{}, false // brackets are for IPv6
		}
	case strings.Count(s, ":") == 1: // an IPv4 address with a port
		i := strings.IndexByte(s, ':')
		if !isPort(s[i:]) {
			return node{}, false
		}
		host = s[:i]
	}
	if i := strings.IndexByte(host, '%'); i >= 0 {
		if strings.IndexByte(host[:i], ':') < 0 {
			return node{}, false
		}
		host = host[:i]
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return node{}, false
	case a.Is4():
		return node{a, host}, true
	default:
		return node{a.Unmap(), ""}, true
	}
}

// isPort reports whether s is empty or a colon and a port: a number, or an obfuscated
// one of RFC 7239, section 6.3.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	port, ok := strings.CutPrefix(s, ":")
	if !ok || port == "" {
		return false
	}
	if name, ok := strings.CutPrefix(port, "_"); ok {
		return name != "" && all(name, obfuscated)
	}
	return len(port) <= 5 && all(port, isDigit)
}

func obfuscated(c byte) bool {
	return isAlpha(c) || isDigit(c) || c == '.' || c == '_' || c == '-'
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}
