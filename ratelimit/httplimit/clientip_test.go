package httplimit_test

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

func clientIP(t require.TestingT, o httplimit.ClientIPOptions) httplimit.KeyFunc {
	key, err := httplimit.ClientIP(o)
	require.NoError(t, err)
	return key
}

func from(peer, header string, lines ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = peer
	for _, line := range lines {
		r.Header.Add(header, line)
	}
	return r
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// proxies are trusted in the tests: a load balancer, a CDN and one with IPv6.
var proxies = prefixes("10.0.0.0/24", "203.0.113.0/24", "2001:db8:ffff::/48")

func TestForwardingHeadersAreReadFromTheRight(t *testing.T) {
	const (
		lb     = "10.0.0.1:4711"
		lb6    = "[2001:db8:ffff::1]:4711"
		client = "198.51.100.7"
	)
	xff := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies})
	fwd := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies, Header: "forwarded"})
	for _, tc := range []struct {
		why   string
		peer  string
		lines []string
		want  string
	}{
		{"no header", lb, nil, "10.0.0.1"},
		{"one hop", lb, []string{client}, client},
		{"over IPv6", lb6, []string{client}, client},
		{"a peer in IPv6 notation", "[::ffff:10.0.0.1]:1", []string{client}, client},
		{"a forged left part", lb, []string{"1.1.1.1, " + client}, client},
		{"two proxies", lb, []string{client + ", 203.0.113.9"}, client},
		{"two proxies and a forged left part", lb, []string{"8.8.8.8, " + client + ", 203.0.113.9"}, client},
		{"a forged trusted address", lb, []string{"203.0.113.1, " + client}, client},
		{"lines are one list", lb, []string{"1.1.1.1", client + ",203.0.113.9", " 10.0.0.7 "}, client},
		{"all are trusted", lb, []string{"10.0.0.3, 203.0.113.9"}, "10.0.0.3"},
		{"an untrusted peer", client + ":99", []string{"1.1.1.1"}, client},
		{"an untrusted peer in a trusted disguise", client + ":99", []string{"10.0.0.1"}, client},
		{"a port", lb, []string{client + ":65535"}, client},
		{"brackets", lb, []string{"[2001:db8:1:2:3::4]"}, "2001:db8:1:2::/64"},
		{"brackets and a port", lb, []string{"[2001:db8:1:2:3::4]:443"}, "2001:db8:1:2::/64"},
		{"no brackets", lb, []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::/64"},
		{"the same /64", lb, []string{"2001:db8:1:2:ffff:ffff:ffff:ffff"}, "2001:db8:1:2::/64"},
		{"a zone", lb, []string{"fe80::1%eth0"}, "fe80::/64"},
		{"a zone in brackets", lb, []string{"[fe80::1%25eth0]:80"}, "fe80::/64"},
		{"mapped", lb, []string{"::ffff:198.51.100.7"}, client},
		{"mapped in hexadecimal", lb, []string{"::ffff:c633:6407"}, client},
		{"mapped with brackets and port", lb, []string{"[::ffff:198.51.100.7]:1"}, client},
		{"a mapped proxy", lb, []string{client + ", ::ffff:203.0.113.9"}, client},

		// What is no address ends the walk at the proxy that wrote it.
		{"unknown", lb, []string{"unknown"}, "10.0.0.1"},
		{"unknown behind a proxy", lb, []string{client + ", unknown, 203.0.113.9"}, "203.0.113.9"},
		{"empty", lb, []string{""}, "10.0.0.1"},
		{"an empty last entry", lb, []string{client + ","}, "10.0.0.1"},
		{"an empty last line", lb, []string{client, ""}, "10.0.0.1"},
		{"commas", lb, []string{",,,"}, "10.0.0.1"},
		{"an octet too large", lb, []string{"198.51.100.256"}, "10.0.0.1"},
		{"leading zeros", lb, []string{"198.051.100.007"}, "10.0.0.1"},
		{"a number", lb, []string{"3325256711"}, "10.0.0.1"},
		{"a prefix", lb, []string{"198.51.100.7/32"}, "10.0.0.1"},
		{"a space within", lb, []string{"198.51.100.7 1.1.1.1"}, "10.0.0.1"},
		{"a zone on IPv4", lb, []string{"198.51.100.7%1"}, "10.0.0.1"},
		{"IPv4 in brackets", lb, []string{"[198.51.100.7]"}, "10.0.0.1"},
		{"an open bracket", lb, []string{"[2001:db8::1"}, "10.0.0.1"},
		{"something behind a bracket", lb, []string{"[2001:db8::1]x"}, "10.0.0.1"},
		{"a port without a number", lb, []string{client + ":"}, "10.0.0.1"},
		{"a port of letters", lb, []string{client + ":http"}, "10.0.0.1"},
		{"a long port", lb, []string{client + ":000080"}, "10.0.0.1"},
		{"a name", lb, []string{"localhost"}, "10.0.0.1"},
		{"quotes", lb, []string{`"198.51.100.7"`}, "10.0.0.1"},
	} {
		key, err := xff(from(tc.peer, "X-Forwarded-For", tc.lines...))
		require.NoError(t, err, tc.why)
		require.Equal(t, tc.want, key, tc.why)
	}
	for _, tc := range []struct {
		why   string
		lines []string
		want  string
	}{
		{"one hop", []string{"for=198.51.100.7"}, client},
		{"upper case and other parameters", []string{`by=203.0.113.43;FOR=198.51.100.7;proto=https;host="a.example"`}, client},
		{"quoted", []string{`for="198.51.100.7"`}, client},
		{"quoted with a port", []string{`for="198.51.100.7:4711"`}, client},
		{"an obfuscated port", []string{`for="198.51.100.7:_x-1"`}, client},
		{"not quoted with a port", []string{`for=198.51.100.7:4711`}, client},
		{"IPv6", []string{`For="[2001:db8:1:2::17]:4711"`}, "2001:db8:1:2::/64"},
		{"IPv6 without quotes", []string{`for=[2001:db8:1:2::17]`}, "2001:db8:1:2::/64"},
		{"quoted pairs", []string{`for="\1\9\8.51.100.7"`}, client},
		{"two proxies", []string{"for=1.1.1.1, for=198.51.100.7;proto=http , for=203.0.113.9"}, client},
		{"lines", []string{"for=1.1.1.1, for=198.51.100.7", "for=203.0.113.9"}, client},
		{"a comma in quotes", []string{`for=198.51.100.7;host="a,for=1.1.1.1"`}, client},
		{"a quote in quotes", []string{`for=198.51.100.7;x="a\",for=1.1.1.1"`}, client},
		{"spaces around semicolons", []string{`proto=http ; for=198.51.100.7 ; by=_b`}, client},
		{"an open quote on the left", []string{`for="1.1.1.1, for=198.51.100.7`}, client},
		{"an open quote on the left, quotes on the right", []string{`for="x, for="198.51.100.7";host="a,b"`}, client},
		{"an open quote in a line before", []string{`for="`, `for="198.51.100.7"`}, client},
		{"a backslash on the left", []string{`for="a\, for="198.51.100.7"`}, client},

		{"unknown", []string{"for=1.1.1.1, for=unknown"}, "10.0.0.1"},
		{"hidden", []string{"for=1.1.1.1, for=_hidden"}, "10.0.0.1"},
		{"hidden behind a proxy", []string{`for=1.1.1.1, for="_hidden:_1", for=203.0.113.9`}, "203.0.113.9"},
		{"no for", []string{"for=1.1.1.1, by=203.0.113.43;proto=http"}, "10.0.0.1"},
		{"for twice", []string{"for=198.51.100.7;for=1.1.1.1"}, "10.0.0.1"},
		{"empty", []string{""}, "10.0.0.1"},
		{"an empty element", []string{"for=1.1.1.1,"}, "10.0.0.1"},
		{"no value", []string{"for="}, "10.0.0.1"},
		{"a space before the value", []string{"for= 198.51.100.7"}, "10.0.0.1"},
		{"no name", []string{"=198.51.100.7"}, "10.0.0.1"},
		{"as X-Forwarded-For", []string{"198.51.100.7"}, "10.0.0.1"},
		{"an open quote", []string{`for="198.51.100.7`}, "10.0.0.1"},
		{"something behind a quote", []string{`for="198.51.100.7"x`}, "10.0.0.1"},
		{"a semicolon at the end", []string{"for=198.51.100.7;"}, "10.0.0.1"},
		{"a control character", []string{"for=\"198.51.100.7\x01\""}, "10.0.0.1"},
	} {
		key, err := fwd(from(lb, "Forwarded", tc.lines...))
		require.NoError(t, err, tc.why)
		require.Equal(t, tc.want, key, "Forwarded: %s", tc.why)
	}
}

func TestNobodyIsTrustedUnlessNamed(t *testing.T) {
	key := clientIP(t, httplimit.ClientIPOptions{})
	for _, peer := range []string{"127.0.0.1:1", "10.1.1.1:1", "192.168.0.1:1", "[::1]:1", "[fe80::1%lo]:1"} {
		bare, err := key(from(peer, "X"))
		require.NoError(t, err)
		for _, header := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip"} {
			forged, err := key(from(peer, header, "1.2.3.4", "for=1.2.3.4"))
			require.NoError(t, err)
			require.Equal(t, bare, forged)
		}
	}
}

func TestOtherHeadersAreNotRead(t *testing.T) {
	key := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies, Header: "X-Real-IP"})
	r := from("10.0.0.1:1", "X-Real-Ip", "198.51.100.7")
	r.Header.Set("X-Forwarded-For", "1.1.1.1")
	k, err := key(r)
	require.NoError(t, err)
	require.Equal(t, "198.51.100.7", k)
}

func TestAPeerThatIsNoIPAddressHasNoKey(t *testing.T) {
	key := clientIP(t, httplimit.ClientIPOptions{Trusted: prefixes("0.0.0.0/0", "::/0")})
	for _, peer := range []string{"", "@", "/run/app.sock", "pipe", ":80", "[]:80", "host:80"} {
		k, err := key(from(peer, "X-Forwarded-For", "1.1.1.1"))
		require.ErrorIs(t, err, httplimit.ErrNoKey, peer)
		require.Empty(t, k)
	}
}

func TestIPv6Prefixes(t *testing.T) {
	for bits, want := range map[int]string{
		0: "2001:db8:aa:bbcc::/64", 56: "2001:db8:aa:bb00::/56", 48: "2001:db8:aa::/48", 1: "::/1", 128: "2001:db8:aa:bbcc:1:2:3:4",
	} {
		key := clientIP(t, httplimit.ClientIPOptions{IPv6Prefix: bits})
		k, err := key(from("[2001:db8:aa:bbcc:1:2:3:4]:1", "X"))
		require.NoError(t, err)
		require.Equal(t, want, k)
		k, err = key(from("192.0.2.1:1", "X"))
		require.NoError(t, err)
		require.Equal(t, "192.0.2.1", k, "IPv4 is not cut")
	}
}

func TestTrustedPrefixesMayBeWrittenAsIPv6(t *testing.T) {
	key := clientIP(t, httplimit.ClientIPOptions{Trusted: prefixes("::ffff:10.0.0.0/120")})
	k, err := key(from("10.0.0.9:1", "X-Forwarded-For", "192.0.2.1"))
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1", k)
	k, err = key(from("10.0.1.9:1", "X-Forwarded-For", "192.0.2.1"))
	require.NoError(t, err)
	require.Equal(t, "10.0.1.9", k)
}

func TestClientIPRefusesWhatCannotWork(t *testing.T) {
	for _, tc := range []struct {
		o    httplimit.ClientIPOptions
		want string
	}{
		{httplimit.ClientIPOptions{Trusted: make([]netip.Prefix, 1)}, "ClientIPOptions.Trusted[0] is"},
		{httplimit.ClientIPOptions{IPv6Prefix: -1}, "ClientIPOptions.IPv6Prefix is -1"},
		{httplimit.ClientIPOptions{IPv6Prefix: 129}, "ClientIPOptions.IPv6Prefix is 129"},
	} {
		_, err := httplimit.ClientIP(tc.o)
		require.ErrorContains(t, err, tc.want)
	}
}

// anAddress draws an address that is not one of the proxies'.
func anAddress(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "v4") {
		return netip.AddrFrom4([4]byte{198, 51, 100, rapid.Byte().Draw(t, "host")})
	}
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 1}
	copy(b[8:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "interface"))
	return netip.AddrFrom16(b)
}

// forgedPartsNeverChangeTheKey is the property that matters: whatever a client writes,
// the key is the address that the outermost trusted proxy saw.
func forgedPartsNeverChangeTheKey(t *rapid.T) {
	forwarded := rapid.Bool().Draw(t, "forwarded")
	o := httplimit.ClientIPOptions{Trusted: proxies}
	write := func(a netip.Addr) string {
		s := a.String()
		if rapid.Bool().Draw(t, "port") {
			s = netip.AddrPortFrom(a, rapid.Uint16().Draw(t, "number")).String()
		}
		return s
	}
	if forwarded {
		o.Header = "Forwarded"
		plain := write
		write = func(a netip.Addr) string {
			s := "for=" + strconv.Quote(plain(a))
			if rapid.Bool().Draw(t, "more") {
				s = `host="a, b\"";` + s + `;proto=https`
			}
			return s
		}
	} else {
		o.Header = "X-Forwarded-For"
	}
	client := anAddress(t)
	chain := []string{write(client)}
	for range rapid.IntRange(0, 3).Draw(t, "proxies") {
		chain = append(chain, write(netip.AddrFrom4([4]byte{203, 0, 113, rapid.Byte().Draw(t, "proxy")})))
	}
	key := clientIP(t, o)
	honest, err := key(from("10.0.0.1:1", o.Header, strings.Join(chain, ", ")))
	require.NoError(t, err)
	want := client.String()
	if client.Is6() {
		want = netip.PrefixFrom(client, 64).Masked().String()
	}
	require.Equal(t, want, honest)

	// The client begins the list, in lines of its own or in the line that the proxies
	// append to, which they may cut into lines as they like.
	forged := rapid.SliceOfN(rapid.OneOf(
		rapid.StringMatching(`[ -~\t]{0,30}`),
		rapid.SampledFrom([]string{"", ",", `"`, `for="`, `for="\`, `for=10.0.0.1`, "10.0.0.1", "203.0.113.1", "unknown", "[", `for="[::1]`, `\`}),
	), 1, 4).Draw(t, "forged")
	lines := append([]string{}, forged[:len(forged)-1]...)
	last := forged[len(forged)-1]
	if rapid.Bool().Draw(t, "own line") {
		lines = append(lines, last)
		last = chain[0]
	} else {
		last += ", " + chain[0]
	}
	for _, hop := range chain[1:] {
		if rapid.Bool().Draw(t, "new line") {
			lines = append(lines, last)
			last = hop
		} else {
			last += "," + hop
		}
	}
	lines = append(lines, last)
	got, err := key(from("10.0.0.1:1", o.Header, lines...))
	require.NoError(t, err)
	require.Equal(t, want, got, "%q", lines)
}

func TestForgedPartsNeverChangeTheKey(t *testing.T) { rapid.Check(t, forgedPartsNeverChangeTheKey) }

func FuzzForgedPartsNeverChangeTheKey(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(forgedPartsNeverChangeTheKey))
}

// FuzzForwarded looks for a field that gives a key that is not in it, or none at all.
func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{
		"for=192.0.2.60;proto=http;by=203.0.113.43", `for="[2001:db8:cafe::17]:4711"`, "for=192.0.2.43, for=198.51.100.17",
		`for="_gazonk"`, `for="a\",b", for=1.1.1.1`, `"`, `\`, ",", ";", "for=", "1.1.1.1, 10.0.0.1", "[::1]:80", "fe80::1%1",
	} {
		f.Add(seed)
	}
	keys := []httplimit.KeyFunc{
		clientIP(f, httplimit.ClientIPOptions{Trusted: proxies, IPv6Prefix: 128}),
		clientIP(f, httplimit.ClientIPOptions{Trusted: proxies, IPv6Prefix: 128, Header: "Forwarded"}),
	}
	f.Fuzz(func(t *testing.T, field string) {
		for i, header := range []string{"X-Forwarded-For", "Forwarded"} {
			k, err := keys[i](from("10.0.0.1:1", header, field))
			require.NoError(t, err)
			a, err := netip.ParseAddr(k)
			require.NoError(t, err, "%q", k)
			require.Equal(t, a.Unmap().WithZone("").String(), k, "the form is canonical")
		}
		// The cut loses nothing.
		rest, last, more := httplimit.CutLastElement(field)
		if more {
			require.Equal(t, field, rest+","+last)
		} else {
			require.Equal(t, field, last)
		}
		if a, ok := httplimit.ForwardedFor(field); ok {
			require.True(t, a.IsValid())
			require.Contains(t, strings.ToLower(field), "for=")
		}
	})
}

func TestClientIPAllocatesAtMostTheKey(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	key := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies})
	for line, most := range map[string]float64{"198.51.100.7:80, 203.0.113.9": 0, "::ffff:198.51.100.7": 1, "2001:db8:1:2:3::4": 1} {
		r := from("10.0.0.1:1", "X-Forwarded-For", line)
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = key(r) }), most, line)
	}
}

func BenchmarkClientIP(b *testing.B) {
	key := clientIP(b, httplimit.ClientIPOptions{Trusted: proxies})
	for _, bm := range []struct {
		name string
		r    *http.Request
	}{
		{"hops=0", from("198.51.100.7:1", "X-Forwarded-For", "1.1.1.1")},
		{"hops=1", from("10.0.0.1:1", "X-Forwarded-For", "1.1.1.1, 198.51.100.7")},
		{"hops=4", from("10.0.0.1:1", "X-Forwarded-For", "1.1.1.1, 198.51.100.7, 203.0.113.9, 203.0.113.8, 10.0.0.7")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = key(bm.r)
			}
		})
	}
	b.Run("hops=floor", func(b *testing.B) { // one address is parsed and written
		b.ReportAllocs()
		text := "198.51.100." + strconv.Itoa(rand.IntN(10))
		for b.Loop() {
			a, _ := netip.ParseAddr(text)
			_ = a.String()
		}
	})
}
