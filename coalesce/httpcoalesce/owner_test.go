package httpcoalesce_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

type fleet = coalesce.Owners[*url.URL]

func members(t *testing.T, urls map[string]string) *fleet {
	var f fleet
	var nodes []coalesce.Node[*url.URL]
	for id, raw := range urls {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		nodes = append(nodes, coalesce.Node[*url.URL]{ID: id, Value: u})
	}
	require.NoError(t, f.Update(nodes))
	return &f
}

func toOwner(t *testing.T, local http.HandlerFunc, o httpcoalesce.OwnerOptions) *httpcoalesce.OwnerHandler {
	h, err := httpcoalesce.ToOwner(local, o)
	require.NoError(t, err)
	return h
}

func body(t *testing.T, u string) string {
	res, err := http.Get(u)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	return string(b)
}

// A crowd that asks all nodes for one page at once makes one of them do the work
// once.
func TestAFleetDoesTheWorkOfAHotPageOnce(t *testing.T) {
	const nodes, clients = 3, 10
	var f fleet
	var handlers []*httpcoalesce.Handler
	var executions atomic.Int64
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		executions.Add(1)
		for joined := uint64(0); joined < nodes*clients-1 && r.Context().Err() == nil; { // until everybody waits
			runtime.Gosched()
			joined = 0
			for _, h := range handlers {
				joined += h.Stats().Joined
			}
		}
		fmt.Fprint(w, "page ", r.URL.Path, " of ", r.Host)
	})
	var all []coalesce.Node[*url.URL]
	var urls []string
	for i := range nodes {
		id := fmt.Sprint("node-", i)
		pages, err := httpcoalesce.New(page, httpcoalesce.Options{})
		require.NoError(t, err)
		handlers = append(handlers, pages)
		owner := toOwner(t, pages.ServeHTTP, httpcoalesce.OwnerOptions{Self: id, Owners: &f})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Host = "pages.example"
			owner.ServeHTTP(w, r)
		}))
		defer s.Close()
		u, err := url.Parse(s.URL)
		require.NoError(t, err)
		all = append(all, coalesce.Node[*url.URL]{ID: id, Value: u})
		urls = append(urls, s.URL)
	}
	require.NoError(t, f.Update(all))
	var wg sync.WaitGroup
	for _, u := range urls {
		for range clients {
			wg.Go(func() { require.Equal(t, "page /cats of pages.example", body(t, u+"/cats")) })
		}
	}
	wg.Wait()
	require.EqualValues(t, 1, executions.Load())
}

func TestARequestMakesOneHopAtMost(t *testing.T) {
	handlers := map[string]*httpcoalesce.OwnerHandler{}
	servers := map[string]string{}
	for _, id := range []string{"a", "b"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handlers[id].ServeHTTP(w, r) }))
		defer s.Close()
		servers[id] = s.URL
	}
	for self, other := range map[string]string{"a": "b", "b": "a"} { // each believes that the other owns everything
		handlers[self] = toOwner(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "by ", self, " for ", r.Header.Get("Evenkeel-Forwarded-By"))
		}, httpcoalesce.OwnerOptions{Self: self, Owners: members(t, map[string]string{other: servers[other]})})
	}
	require.Equal(t, "by b for a", body(t, servers["a"]))
	require.Equal(t, "by a for b", body(t, servers["b"]))
	require.Equal(t, httpcoalesce.OwnerStats{Forwarded: 1}, handlers["a"].Stats())
}

func TestTheOwnerSeesTheRequestAsThisNodeWould(t *testing.T) {
	var got *http.Request
	owner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer owner.Close()
	h := toOwner(t, notHere(t), httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": owner.URL})})
	r := httptest.NewRequest("GET", "http://pages.example/a%2Fb?q=1;2&x=%20", nil)
	r.RemoteAddr = "192.0.2.9:1234"
	for field, value := range map[string]string{
		"Accept-Language": "de", "Cookie": "c=1", "Authorization": "Bearer x",
		"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "Forwarded": "for=198.51.100.7",
	} {
		r.Header.Set(field, value)
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, "pages.example", got.Host)
	require.Equal(t, "/a%2Fb?q=1;2&x=%20", got.RequestURI)
	require.Equal(t, "198.51.100.7, 192.0.2.9", got.Header.Get("X-Forwarded-For"))
	require.Equal(t, "https", got.Header.Get("X-Forwarded-Proto"))
	require.Equal(t, "pages.example", got.Header.Get("X-Forwarded-Host"))
	for _, field := range []string{"Accept-Language", "Cookie", "Authorization", "Forwarded"} {
		require.Equal(t, r.Header.Get(field), got.Header.Get(field), field)
	}
}

// notHere is a local handler that must not be called.
func notHere(t *testing.T) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { t.Error("handled here") }
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(s string) *http.Response {
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(s))}
}

func hereOr(t *testing.T, transport roundTripper) func(method string, mod ...func(*http.Request)) string {
	h := toOwner(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") },
		httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": "http://b.example"}), Transport: transport})
	return func(method string, mod ...func(*http.Request)) string {
		r := httptest.NewRequest(method, "/page", nil)
		for _, m := range mod {
			m(r)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
}

func TestWorkIsDoneHereWhileTheOwnerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, up := 0, false
		ask := hereOr(t, func(*http.Request) (*http.Response, error) {
			tries++
			if !up {
				return nil, errors.New("connection refused")
			}
			return answer("there"), nil
		})
		for range 5 {
			require.Equal(t, "here", ask("GET"))
		}
		require.Equal(t, 1, tries, "it is left alone")
		time.Sleep(time.Second)
		for range 5 {
			require.Equal(t, "here", ask("GET"))
		}
		require.Equal(t, 2, tries, "one tries, the others do not")
		up = true
		time.Sleep(time.Second)
		for range 5 {
			require.Equal(t, "there", ask("GET"))
		}
		require.Equal(t, 7, tries)
	})
}

func TestWorkIsDoneHereWhenTheOwnerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := hereOr(t, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		begin := time.Now()
		require.Equal(t, "here", ask("GET"))
		require.Equal(t, 5*time.Second, time.Since(begin))
		require.Equal(t, "here", ask("GET"))
		require.Equal(t, 5*time.Second, time.Since(begin))
	})
}

// The Timeout is for the header: a body may take its time.
func TestASlowBodyIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := hereOr(t, func(r *http.Request) (*http.Response, error) {
			res := answer("")
			pr, pw := io.Pipe()
			res.Body = pr
			go func() {
				time.Sleep(time.Minute)
				_, _ = io.WriteString(pw, "slow")
				_ = pw.CloseWithError(context.Cause(r.Context()))
			}()
			return res, nil
		})
		require.Equal(t, "slow", ask("GET"))
	})
}

func TestAClientThatLeavesDoesNotMakeTheOwnerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		ask := hereOr(t, func(r *http.Request) (*http.Response, error) {
			leave()
			if r.Header.Get("Patient") == "" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answer("there"), nil
		})
		require.PanicsWithValue(t, http.ErrAbortHandler, func() {
			ask("GET", func(r *http.Request) { *r = *r.WithContext(ctx) })
		})
		require.Equal(t, "there", ask("GET", func(r *http.Request) { r.Header.Set("Patient", "1") }))
	})
}

func TestOnlyReadsAreForwarded(t *testing.T) {
	ask := hereOr(t, func(*http.Request) (*http.Response, error) { return answer("there"), nil })
	require.Equal(t, "there", ask("GET"))
	require.Equal(t, "there", ask("HEAD"))
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		require.Equal(t, "here", ask(method), method)
	}
	require.Equal(t, "here", ask("GET", func(r *http.Request) { r.Header.Set("Upgrade", "websocket") }))
	require.Equal(t, "here", ask("GET", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 }))
	require.Equal(t, "here", ask("GET", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1 }))
	require.Equal(t, "here", ask("GET", func(r *http.Request) { r.Header.Set("Evenkeel-Forwarded-By", "") }), "also an empty mark")
}

func TestKeyRoutes(t *testing.T) {
	var keys []string
	h := toOwner(t, func(http.ResponseWriter, *http.Request) {}, httpcoalesce.OwnerOptions{
		Self: "a", Owners: members(t, map[string]string{"a": "http://a.example"}),
		Key: func(r *http.Request) string { keys = append(keys, r.PathValue("channel")); return "k" },
	})
	mux := http.NewServeMux()
	mux.Handle("/{channel}/messages", h)
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/cats/messages", nil))
	require.Equal(t, []string{"cats"}, keys)
	require.Equal(t, httpcoalesce.OwnerStats{}, h.Stats())
}

func TestAnEmptyFleetIsLocal(t *testing.T) {
	h := toOwner(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") },
		httpcoalesce.OwnerOptions{Self: "a", Owners: new(fleet)})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, "here", w.Body.String())
}

// An owner that dies in the middle must not look like a short page.
func TestAnOwnerThatBreaksOffBreaksTheClientsConnection(t *testing.T) {
	owner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half a pa")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer owner.Close()
	front := httptest.NewServer(toOwner(t, notHere(t), httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": owner.URL})}))
	defer front.Close()
	res, err := http.Get(front.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.Equal(t, "half a pa", string(b))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// A server that was killed refuses connections: the fleet goes on without it.
func TestAServerThatIsGoneCostsNothingButItsShare(t *testing.T) {
	owner := httptest.NewServer(http.NotFoundHandler())
	h := toOwner(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") },
		httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": owner.URL})})
	front := httptest.NewServer(h)
	defer front.Close()
	owner.CloseClientConnections()
	owner.Close()
	for range 3 {
		require.Equal(t, "here", body(t, front.URL))
	}
	require.Equal(t, httpcoalesce.OwnerStats{FellBack: 3}, h.Stats())
}

func TestToOwnerNamesWhatIsMissing(t *testing.T) {
	local := http.NotFoundHandler()
	for want, c := range map[string]struct {
		local http.Handler
		o     httpcoalesce.OwnerOptions
	}{
		"httpcoalesce: local is nil, want a handler":               {nil, httpcoalesce.OwnerOptions{Self: "a", Owners: new(fleet)}},
		"httpcoalesce: Self is empty, want the ID of this node":    {local, httpcoalesce.OwnerOptions{Owners: new(fleet)}},
		"httpcoalesce: Owners is nil, want the nodes of the fleet": {local, httpcoalesce.OwnerOptions{Self: "a"}},
		"httpcoalesce: Timeout is -1s, want at least 0":            {local, httpcoalesce.OwnerOptions{Self: "a", Owners: new(fleet), Timeout: -time.Second}},
	} {
		_, err := httpcoalesce.ToOwner(c.local, c.o)
		require.EqualError(t, err, want)
	}
}
