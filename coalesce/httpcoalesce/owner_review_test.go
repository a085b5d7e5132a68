package httpcoalesce_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// Without a Key a request is routed by its host and path: not by its query, so
// that all pages of a resource meet, and not without its host.
func TestWithoutAKeyHostAndPathRoute(t *testing.T) {
	var nodes []coalesce.Node[*url.URL]
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		nodes = append(nodes, coalesce.Node[*url.URL]{ID: id, Value: &url.URL{Scheme: "http", Host: id + ".example"}})
	}
	var f fleet
	require.NoError(t, f.Update(nodes))
	h := toOwner(t, notHere(t), httpcoalesce.OwnerOptions{
		Self: "self", Owners: &f,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) { return answer(r.URL.Host), nil }),
	})
	to := func(target string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		return w.Body.String()
	}
	for _, page := range []string{"one.example/a", "one.example/b", "one.example/a%2Fb", "two.example/a", "two.example/c"} {
		owner, err := f.Owner(page)
		require.NoError(t, err)
		require.Equal(t, owner.ID+".example", to("http://"+page))
		require.Equal(t, owner.ID+".example", to("http://"+page+"?page=2"))
	}
}

func TestAnOwnerWithoutAnAddressIsLocal(t *testing.T) {
	var f fleet
	require.NoError(t, f.Update([]coalesce.Node[*url.URL]{{ID: "b"}}))
	h := toOwner(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") },
		httpcoalesce.OwnerOptions{Self: "a", Owners: &f})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, "here", w.Body.String())
	require.Equal(t, httpcoalesce.OwnerStats{}, h.Stats())
}

// A header that comes just after the Timeout must not become a page that is cut
// off: the request to the owner has ended, and with it the body.
func TestAHeaderThatComesTooLateIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		ask := hereOr(t, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			res := answer("half")
			res.Body = lateBody{io.MultiReader(res.Body, errReader{context.Cause(r.Context())}), func() { closed = true }}
			return res, nil
		})
		require.Equal(t, "here", ask("GET"))
		require.True(t, closed)
	})
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

type lateBody struct {
	io.Reader
	closed func()
}

func (b lateBody) Close() error { b.closed(); return nil }

// What the owner has flushed is flushed here, though more is to come.
func TestWhatTheOwnerFlushesArrivesAtOnce(t *testing.T) {
	more := make(chan struct{})
	owner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "11") // without it the proxy flushes anyway
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "second")
	}))
	defer owner.Close()
	front := httptest.NewServer(toOwner(t, notHere(t), httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": owner.URL})}))
	defer front.Close()
	res, err := http.Get(front.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	first := make([]byte, 5)
	_, err = io.ReadFull(res.Body, first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first))
	close(more)
	rest, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "second", string(rest))
}

// Of what a proxy in front has said nothing is lost, and where there is none this
// node says it.
func TestHostAndSchemeOfTheClientAreKept(t *testing.T) {
	var got http.Header
	h := toOwner(t, notHere(t), httpcoalesce.OwnerOptions{
		Self: "a", Owners: members(t, map[string]string{"b": "http://b.example"}),
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) { got = r.Header; return answer(""), nil }),
	})
	r := httptest.NewRequest("GET", "http://inside.example/", nil)
	r.Header.Set("X-Forwarded-Host", "www.example")
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, []string{"www.example"}, got["X-Forwarded-Host"])
	require.Equal(t, []string{"http"}, got["X-Forwarded-Proto"])
	require.Nil(t, got["Forwarded"])
	require.Equal(t, []string{"a"}, got["Evenkeel-Forwarded-By"])
}

// The owners that are down are remembered one by one: one that comes back does not
// make another be asked, and the last to come back is as if nothing had been.
func TestEachOwnerIsDownByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fleet
		require.NoError(t, f.Update([]coalesce.Node[*url.URL]{
			{ID: "b", Value: &url.URL{Scheme: "http", Host: "b"}}, {ID: "c", Value: &url.URL{Scheme: "http", Host: "c"}},
		}))
		key := map[string]string{}
		for k := rune('a'); len(key) < 2; k++ {
			owner, err := f.Owner(string(k))
			require.NoError(t, err)
			key[owner.ID] = string(k)
		}
		tries, broken := map[string]int{}, map[string]bool{"b": true, "c": true}
		h := toOwner(t, func(http.ResponseWriter, *http.Request) {}, httpcoalesce.OwnerOptions{
			Self: "a", Owners: &f, Key: func(r *http.Request) string { return key[r.Header.Get("To")] },
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				tries[r.URL.Host]++
				if broken[r.URL.Host] {
					return nil, errors.New("connection refused")
				}
				return answer(""), nil
			}),
		})
		ask := func(ids ...string) {
			for _, id := range ids {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("To", id)
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		ask("b", "c", "b", "c")
		require.Equal(t, map[string]int{"b": 1, "c": 1}, tries)
		time.Sleep(time.Second)
		broken["b"] = false
		ask("b", "b", "c", "c", "b")
		require.Equal(t, map[string]int{"b": 4, "c": 2}, tries)
		time.Sleep(time.Hour) // c is not asked, and is still known to be down
		broken["b"] = true
		ask("b", "b")
		require.Equal(t, map[string]int{"b": 5, "c": 2}, tries)
		broken["c"] = false
		ask("c", "c")
		require.Equal(t, map[string]int{"b": 5, "c": 4}, tries)
		require.Equal(t, httpcoalesce.OwnerStats{Forwarded: 5, FellBack: 8}, h.Stats())
	})
}

// While one request tries an owner that was down, the others do not wait with it.
func TestOneTriesAndTheOthersDoNotWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, hang := 0, make(chan struct{})
		ask := hereOr(t, func(*http.Request) (*http.Response, error) {
			if tries++; tries == 1 {
				return nil, errors.New("connection refused")
			}
			<-hang
			return answer("there"), nil
		})
		require.Equal(t, "here", ask("GET"))
		time.Sleep(time.Second)
		tried := make(chan string, 1)
		go func() { tried <- ask("GET") }()
		synctest.Wait()
		for range 3 {
			require.Equal(t, "here", ask("GET"))
		}
		require.Equal(t, 2, tries)
		close(hang)
		require.Equal(t, "there", <-tried)
		require.Equal(t, "there", ask("GET"))
	})
}
