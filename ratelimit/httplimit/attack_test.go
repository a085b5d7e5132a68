package httplimit_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

// raw sends bytes to an address and reads the whole answer.
func raw(t *testing.T, addr, request string) *http.Response {
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return res
}

// Behind a real proxy that appends, whatever lines a client writes, in whatever case, its
// key is the address that the proxy saw.
func TestBehindARealProxyNoHeaderChangesTheKey(t *testing.T) {
	for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
		key := clientIP(t, httplimit.ClientIPOptions{Trusted: prefixes("127.0.0.2/32"), Header: header})
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			k, err := key(r)
			if err != nil {
				k = err.Error()
			}
			_, _ = io.WriteString(w, k)
		}))
		target, err := url.Parse(backend.URL)
		require.NoError(t, err)
		proxy := httptest.NewServer(&httputil.ReverseProxy{
			Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext},
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // it appends, as most do
				r.SetXForwarded()
				host, _, _ := net.SplitHostPort(r.In.RemoteAddr)
				r.Out.Header["Forwarded"] = append(append([]string{}, r.In.Header["Forwarded"]...), `for="`+host+`";proto=http`)
			},
		})
		for _, lines := range []string{
			"",
			"%[1]s: 1.2.3.4\r\n%[1]s: 5.6.7.8\r\n",
			"%[2]s: for=1.2.3.4, 1.2.3.4\r\n",
			"%[3]s: \"\r\n",
			"%[1]s: for=\"\r\n",
			"%[1]s: \\\r\n%[2]s: \\\"\r\n",
			"%[1]s:\r\n%[1]s: ,\r\n",
			"%[1]s: 127.0.0.2\r\n",
			"%[1]s: for=127.0.0.2;for=\"127.0.0.2\r\n",
			"%[1]s: 127.0.0.2, 127.0.0.2,\t\r\n",
			"X-Forwarded-For: 1.1.1.1\r\nForwarded: for=2.2.2.2\r\nX-Real-Ip: 3.3.3.3\r\n",
			"X_Forwarded_For: 1.1.1.1\r\n",
			"Connection: X-Forwarded-For, Forwarded\r\n%[1]s: 1.1.1.1\r\n",
		} {
			if lines != "" {
				lines = fmt.Sprintf(lines+"%.0[1]s%.0[2]s%.0[3]s", header, strings.ToLower(header), strings.ToUpper(header))
			}
			res := raw(t, proxy.Listener.Addr().String(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+lines+"\r\n")
			require.Equal(t, "127.0.0.1", body(t, res), "%q", lines)
		}
		proxy.Close()
		backend.Close()
	}
}

// Obsolete line folding and bytes above ASCII do not make another line or another key.
func TestStrangeBytesEndTheWalk(t *testing.T) {
	xff := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies})
	fwd := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies, Header: "Forwarded"})
	for _, junk := range []string{
		"\u00a0198.51.100.7", "198.51.100.7\u00a0", "\u200b198.51.100.7", "１９８.51.100.7", "198.51.100.7\x00", "\v198.51.100.7",
		"198.51.100.7;", "198.51.100.7#", "0x1.1.1.1", "1.1", "::ffff:1.1.1.1.", "[::1", "::1]", "[]", "[]:1", "::1:99999:",
	} {
		k, err := xff(from("10.0.0.1:1", "X-Forwarded-For", "1.1.1.1, "+junk))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.1", k, "%q", junk)
		k, err = fwd(from("10.0.0.1:1", "Forwarded", "for=1.1.1.1, for="+junk))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.1", k, "%q", junk)
	}
}

func TestTrustEverybodyByPrefixOfNothing(t *testing.T) {
	for _, tc := range []struct {
		trusted string
		line    string
		peer    string
		want    string
	}{
		{"0.0.0.0/0", "198.51.100.7", "10.0.0.1:1", "198.51.100.7"},
		{"0.0.0.0/0", "2001:db8::1, 198.51.100.7", "10.0.0.1:1", "2001:db8::/64"},
		{"::ffff:0:0/96", "198.51.100.7, ::ffff:1.1.1.1", "[::ffff:10.0.0.1]:1", "198.51.100.7"},
		{"::/0", "198.51.100.7", "10.0.0.1:1", "10.0.0.1"}, // IPv4 is not IPv6
		{"::/0", "198.51.100.7", "[::1]:1", "198.51.100.7"},
		{"10.0.0.9/24", "198.51.100.7", "10.0.0.1:1", "198.51.100.7"}, // not masked
	} {
		key := clientIP(t, httplimit.ClientIPOptions{Trusted: []netip.Prefix{netip.MustParsePrefix(tc.trusted)}})
		k, err := key(from(tc.peer, "X-Forwarded-For", tc.line))
		require.NoError(t, err)
		require.Equal(t, tc.want, k, "%v", tc)
	}
}

// A walk that is quadratic in anything would not end before the test's deadline.
func TestLongHeadersCostOnlyTheirLength(t *testing.T) {
	const long = 1 << 18
	for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
		key := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies, Header: header})
		for _, unit := range []string{
			",", `"`, `\`, `\"`, `\\"`, `",`, `"\`, "10.0.0.1,", "for=10.0.0.1,", "for=\"10.0.0.1\",", ";", "=", "for=10.0.0.1;", "x=y;", `x="\"";`, ":", "[", "%", " ", "1", "::1,", `for="[2001:db8:ffff::1]",`, `a="b,c",`,
		} {
			junk := strings.Repeat(unit, long/len(unit))
			for _, lines := range [][]string{{junk}, {junk + "10.0.0.1"}, {junk, "for=10.0.0.1"}, {`"` + junk}, {`for="` + junk}} {
				_, _ = key(from("10.0.0.1:1", header, lines...))
			}
		}
	}
}

// What stands in a header that the first trusted proxy has not read cannot make a client
// share the key of another: its own address decides, whatever its lines say.
func TestNoClientTakesTheKeyOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.SampledFrom([]string{"X-Forwarded-For", "Forwarded"}).Draw(t, "header")
		key := clientIP(t, httplimit.ClientIPOptions{Trusted: proxies, Header: header})
		victim, self := "198.51.100.1", "198.51.100.2"
		parts := rapid.SliceOf(rapid.SampledFrom([]string{
			victim, "for=" + victim, `for="` + victim + `"`, "10.0.0.1", "for=10.0.0.1", `"`, `\`, ",", ";", "=", " ", "\t", "[", "]", ":", "%", "for", "unknown", "_x",
		})).Draw(t, "parts")
		forged := strings.Join(parts, rapid.SampledFrom([]string{"", ",", ", ", ";"}).Draw(t, "by"))
		mine := self
		if header == "Forwarded" {
			mine = rapid.SampledFrom([]string{"for=" + self, `for="` + self + `:1"`, `by=_x;for=` + self + `;host="a\"b\\"`, `host=",\"";for="` + self + `"`}).Draw(t, "mine")
		}
		lines := []string{forged, mine}
		if rapid.Bool().Draw(t, "joined") {
			lines = []string{forged + rapid.SampledFrom([]string{", ", ",", " , "}).Draw(t, "comma") + mine}
		}
		k, err := key(from("10.0.0.1:1", header, lines...))
		require.NoError(t, err)
		require.Equal(t, self, k, "%q", lines)
	})
}
