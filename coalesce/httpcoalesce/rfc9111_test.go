package httpcoalesce_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// A script is two requests of which the second comes while the first is worked on, and
// the response that the handler writes then. Which behaviours are worth a case was
// taken from the http-tests/cache-tests suite, and from RFC 9111 itself.
type script struct {
	name          string
	method        string
	first, second string // fields, separated by "|"; second "=" is the same
	status        int
	response      string // fields
	late          bool   // the second comes when the header has been sent already
	public        bool   // Principal says: everybody gets the same
	shared        bool
}

var anyHeaders = []string{}

var scripts = []script{
	{name: "4 collapse: equal requests", shared: true},
	{name: "4 collapse: HEAD too", method: "HEAD", shared: true},
	{name: "4 late, the header is sent, no freshness", late: true, shared: true},
	{name: "3 heuristic: 404", status: 404, shared: true},
	{name: "3 heuristic: 301", status: 301, shared: true},
	{name: "3 heuristic: 204", status: 204, shared: true},
	{name: "3 heuristic: 410", status: 410, shared: true},
	{name: "3 not heuristic: 302", status: 302},
	{name: "3 not heuristic: 302, max-age", status: 302, response: "Cache-Control: max-age=9", shared: true},
	{name: "3 not heuristic: 302, Expires", status: 302, response: "Date: Sat, 01 Jan 2000 00:00:00 GMT|Expires: Sat, 01 Jan 2000 00:00:09 GMT", shared: true},
	{name: "3 not heuristic: 307, public", status: 307, response: "Cache-Control: public", shared: true},
	{name: "3 not heuristic: 401", status: 401},
	{name: "3 not heuristic: 403", status: 403},
	{name: "3 not heuristic: 429", status: 429, response: "Retry-After: 1"},
	{name: "3 not heuristic: 299", status: 299},
	{name: "3 unknown status, explicit", status: 299, response: "Cache-Control: max-age=9", shared: true},
	{name: "5.2.2.3 must-understand, unknown status", status: 299, response: "Cache-Control: max-age=9, must-understand"},
	{name: "5.2.2.3 must-understand, known status", response: "Cache-Control: max-age=9, must-understand", shared: true},
	{name: "errors of the server: 500", status: 500, shared: true},
	{name: "errors of the server: 503", status: 503, response: "Retry-After: 1", shared: true},
	{name: "errors of the server: 503, no-store", status: 503, response: "Cache-Control: no-store"},
	{name: "3.3 incomplete: 206", status: 206, response: "Content-Range: bytes 0-0/1"},

	{name: "5.2.2.5 no-store", response: "Cache-Control: no-store"},
	{name: "5.2.2.5 no-store, any case", response: "Cache-Control: No-StOrE"},
	{name: "5.2.2.5 no-store, second line", response: "Cache-Control: max-age=9|Cache-Control: no-store"},
	{name: "5.2.2.5 no-store, with max-age and public", response: "Cache-Control: public, max-age=10000, no-store"},
	{name: "5.2.2.5 no-store in a quoted string is none", response: `Cache-Control: max-age=9, x="no-store"`, shared: true},
	{name: "5.2.2.7 private", response: "Cache-Control: private, max-age=9"},
	{name: "5.2.2.7 private with fields", response: `Cache-Control: private="x-user", max-age=9`},
	{name: "5.2.2.4 no-cache", response: "Cache-Control: no-cache, max-age=9"},
	{name: "5.2.2.4 no-cache with fields", response: `Cache-Control: no-cache="set-cookie", max-age=9`},
	{name: "5.2.2.8 proxy-revalidate, fresh", response: "Cache-Control: max-age=9, proxy-revalidate", shared: true},
	{name: "5.2.2.2 must-revalidate, fresh", response: "Cache-Control: max-age=9, must-revalidate", shared: true},
	{name: "5.2.2.6 no-transform", response: "Cache-Control: no-transform", shared: true},
	{name: "5.2.3 unknown extension", response: `Cache-Control: community="UCI", x`, shared: true},
	{name: "5.2 malformed: space around =", response: "Cache-Control: max-age = 9"},
	{name: "5.2 malformed: open string", response: `Cache-Control: x="y`},
	{name: "5.2 malformed: separator", response: "Cache-Control: max-age=9; public"},
	{name: "5.2 empty elements", response: "Cache-Control: , max-age=9,, ", shared: true},
	{name: "7.3 Set-Cookie", response: "Set-Cookie: a=b"},
	{name: "7.3 Set-Cookie, public", response: "Set-Cookie: a=b|Cache-Control: public, max-age=9"},

	{name: "4.2 max-age=0", response: "Cache-Control: max-age=0"},
	{name: "4.2 stale at once: Age", response: "Cache-Control: max-age=9|Age: 9"},
	{name: "4.2 fresh: Age", response: "Cache-Control: max-age=9|Age: 8", shared: true},
	{name: "4.2.3 stale at once: Date", response: "Cache-Control: max-age=9|Date: Fri, 31 Dec 1999 23:59:00 GMT"},
	{name: "4.2.1 s-maxage before max-age", response: "Cache-Control: max-age=0, s-maxage=9", shared: true},
	{name: "4.2.1 s-maxage=0 before max-age", response: "Cache-Control: max-age=9, s-maxage=0"},
	{name: "4.2.1 max-age before Expires", response: "Cache-Control: max-age=9|Expires: 0", shared: true},
	{name: "4.2.1 repeated: the stricter", response: "Cache-Control: max-age=9, max-age=0"},
	{name: "4.2.1 invalid max-age", response: "Cache-Control: max-age=9a"},
	{name: "4.2.1 quoted max-age", response: `Cache-Control: max-age="9"`, shared: true},
	{name: "4.2.1 huge max-age", response: "Cache-Control: max-age=99999999999999999999", shared: true},
	{name: "5.3 Expires: 0", response: "Expires: 0"},
	{name: "5.3 Expires in the past", response: "Expires: Fri, 31 Dec 1999 23:59:00 GMT"},
	{name: "5.3 Expires in the future", response: "Expires: Sat, 01 Jan 2000 00:01:00 GMT", shared: true},
	{name: "RFC 5861 3: stale-while-revalidate", response: "Cache-Control: max-age=0, stale-while-revalidate=9", shared: true},
	{name: "RFC 5861 3: over", response: "Cache-Control: max-age=1, stale-while-revalidate=9|Age: 10"},
	{name: "RFC 5861 3: must-revalidate forbids", response: "Cache-Control: max-age=0, must-revalidate, stale-while-revalidate=9"},
	{name: "RFC 5861 3: s-maxage forbids", response: "Cache-Control: s-maxage=0, stale-while-revalidate=9"},
	{name: "RFC 5861 4: stale-if-error makes nothing fresh", response: "Cache-Control: max-age=0, stale-if-error=9"},
	{name: "4.2 late and fresh", response: "Cache-Control: max-age=9", late: true, shared: true},

	{name: "4.1 Vary: *", response: "Vary: *"},
	{name: "4.1 Vary: *, twice", response: "Vary: *|Vary: *"},
	{name: "4.1 Vary: empty and *", response: "Vary: , *"},
	{name: "4.1 Vary: name and *", response: "Vary: Foo, *"},
	{name: "4.1 Vary: malformed", response: "Vary: Foo Bar"},
	{name: "4.1 Vary, equal", first: "Foo: 1", second: "=", response: "Vary: Foo", shared: true},
	{name: "4.1 Vary, any case", first: "Foo: 1", second: "Foo: 2", response: "Vary: fOO"},
	{name: "4.1 Vary, different", first: "Foo: 1", second: "Foo: 2", response: "Vary: Foo"},
	{name: "4.1 Vary, different but not named", first: "Foo: 1|Bar: 1", second: "Foo: 1|Bar: 2", response: "Vary: Foo", shared: true},
	{name: "4.1 Vary, missing in the first", second: "Foo: 1", response: "Vary: Foo"},
	{name: "4.1 Vary, missing in the second", first: "Foo: 1", response: "Vary: Foo"},
	{name: "4.1 Vary, missing and empty", first: "Foo:", response: "Vary: Foo"},
	{name: "4.1 Vary, missing in both", response: "Vary: Foo", shared: true},
	{name: "4.1 Vary, two fields, one different", first: "Foo: 1|Bar: a", second: "Foo: 1|Bar: b", response: "Vary: Foo, Bar"},
	{name: "4.1 Vary, two lines", first: "Foo: 1|Bar: a", second: "Foo: 1|Bar: b", response: "Vary: Foo|Vary: Bar"},
	{name: "4.1 Vary, values in one line or two", first: "Foo: 1, 2", second: "Foo: 1|Foo: 2", response: "Vary: Foo", shared: true},
	{name: "4.1 Vary, late", first: "Foo: 1", second: "Foo: 2", response: "Vary: Foo", late: true},
	{name: "4.1 Vary, late and equal", first: "Foo: 1", second: "=", response: "Vary: Foo", late: true, shared: true},
	{name: "4.1 no Vary, different", first: "Foo: 1", second: "Foo: 2", shared: true},

	{name: "3.5 Authorization, nobody says who asks", first: "Authorization: x", second: "=", response: "Cache-Control: public"},
	{name: "3.5 Authorization", public: true, first: "Authorization: x", second: "=", response: "Cache-Control: max-age=9"},
	{name: "3.5 Authorization, public", public: true, first: "Authorization: x", second: "Authorization: y", response: "Cache-Control: public", shared: true},
	{name: "3.5 Authorization, must-revalidate", public: true, first: "Authorization: x", second: "=", response: "Cache-Control: must-revalidate, max-age=9", shared: true},
	{name: "3.5 Authorization, s-maxage", public: true, first: "Authorization: x", second: "=", response: "Cache-Control: s-maxage=9", shared: true},
	{name: "3.5 Authorization, s-maxage=0", public: true, first: "Authorization: x", second: "=", response: "Cache-Control: s-maxage=0"},
	{name: "3.5 Authorization and none", public: true, first: "Authorization: x", response: "Cache-Control: public"},
	{name: "3.5 none and Authorization", public: true, second: "Authorization: x", response: "Cache-Control: public"},
	{name: "Cookie, nobody says who asks", first: "Cookie: a=b", second: "=", response: "Cache-Control: public"},
	{name: "Cookie, the same for everybody", public: true, first: "Cookie: a=b", second: "Cookie: a=c", shared: true},
	{name: "Cookie, Vary: Cookie", public: true, first: "Cookie: a=b", second: "Cookie: a=c", response: "Vary: Cookie"},

	{name: "5.2.1.5 no-store in the request", first: "Cache-Control: no-store", second: "="},
	{name: "5.2.1.4 no-cache in the request", first: "Cache-Control: no-cache", second: "="},
	{name: "5.2.1.7 only-if-cached in the request", first: "Cache-Control: only-if-cached", second: "="},
	{name: "5.4 Pragma: no-cache", first: "Pragma: no-cache", second: "="},
	{name: "5.4 Pragma beside Cache-Control", first: "Pragma: no-cache|Cache-Control: max-stale", second: "=", shared: true},
	{name: "5.2 malformed in the request", first: "Cache-Control: max-age = 0", second: "="},
	{name: "5.2.1.1 max-age=0 in the request, not begun", first: "Cache-Control: max-age=0", second: "=", shared: true},
	{name: "5.2.1.1 max-age=0 in the request, begun", first: "Cache-Control: max-age=0", second: "=", late: true},
	{name: "5.2.1.1 max-age=0 in one request only", second: "Cache-Control: max-age=0"},
	{name: "5.2.1.3 min-fresh in the request, begun", first: "Cache-Control: min-fresh=9", second: "=", late: true},
	{name: "5.2.1.2 max-stale in the request", first: "Cache-Control: max-stale=9", second: "=", late: true, shared: true},
	{name: "5.2.1.6 no-transform in the request", first: "Cache-Control: no-transform", second: "=", shared: true},

	{name: "4.3 conditional, equal", first: `If-None-Match: "a"`, second: "=", status: 304, response: `ETag: "a"`, shared: true},
	{name: "4.3 conditional, different", first: `If-None-Match: "a"`, second: `If-None-Match: "b"`, status: 304, response: `ETag: "a"`},
	{name: "4.3 conditional and not", first: `If-None-Match: "a"`, status: 304, response: `ETag: "a"`},
	{name: "4.3 conditional by date", first: "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT", status: 304},
	{name: "RFC 9110 13.1.1 If-Match", first: `If-Match: "a"`, status: 412},
	{name: "RFC 9110 13.1.4 If-Unmodified-Since", first: "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT"},
	{name: "RFC 9110 14.2 Range", first: "Range: bytes=0-", second: "="},
	{name: "RFC 9110 13.1.5 If-Range", first: `If-Range: "a"`, second: "="},
	{name: "RFC 9110 7.8 Upgrade", first: "Upgrade: websocket|Connection: upgrade", second: "="},
	{name: "RFC 9110 10.1.1 Expect", first: "Expect: 100-continue", second: "="},
	{name: "RFC 9110 9.3.3 POST", method: "POST"},
	{name: "RFC 9110 9.3.7 OPTIONS", method: "OPTIONS"},
}

// TestRFC9111 plays the scripts: whether the second request shared the response of the
// first. Both get the right one in any case.
func TestRFC9111(t *testing.T) {
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sc.play(t) })
		})
	}
}

func (sc script) play(t *testing.T) {
	o := httpcoalesce.Options{KeyHeaders: anyHeaders}
	if sc.public {
		o.Principal = func(*http.Request) (string, bool) { return "", true }
	}
	if sc.second == "=" {
		sc.second = sc.first
	}
	if sc.method == "" {
		sc.method = "GET"
	}
	s := newStage(t, o)
	answer := func(w http.ResponseWriter, r *http.Request) {
		for _, f := range split(sc.response) {
			name, value, _ := strings.Cut(f, ":")
			w.Header().Add(name, strings.TrimSpace(value))
		}
		w.Header().Set("For", r.Header.Get("Number"))
		w.WriteHeader(max(sc.status, 200))
		w.(http.Flusher).Flush()
	}
	first := s.ask(request(sc.method, "/", append(split(sc.first), "Number: 1")...))
	require.Equal(t, 1, s.count())
	if sc.late {
		s.run(0).play(answer)
		require.Equal(t, "streaming", first.state())
	}
	second := s.ask(request(sc.method, "/", append(split(sc.second), "Number: 2")...))
	if !sc.late {
		s.run(0).play(answer)
	}
	want := "1"
	if !sc.shared {
		require.Equal(t, 2, s.count(), "the second request runs on its own while the first still goes on")
		s.run(1).play(answer)
		want = "2"
	}
	s.endAll()
	require.Equal(t, "done", first.state())
	require.Equal(t, "done", second.state())
	require.Equal(t, max(sc.status, 200), second.status)
	require.Equal(t, "1", first.sent.Get("For"))
	require.Equal(t, want, second.sent.Get("For"))
	require.EqualValues(t, s.count(), s.Stats().Executions)
}

func split(fields string) []string {
	if fields == "" {
		return nil
	}
	return strings.Split(fields, "|")
}
