package httpcoalesce_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// Behind a proxy on a Unix socket RemoteAddr is "@" and no host and port.
func TestForwardedForIsKeptBehindAUnixSocket(t *testing.T) {
	var got *http.Request
	owner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer owner.Close()
	h := toOwner(t, notHere(t), httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": owner.URL})})
	r := httptest.NewRequest("GET", "http://pages.example/", nil)
	r.RemoteAddr = "@"
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, "198.51.100.7", got.Header.Get("X-Forwarded-For"))
}

// A Transport that adds Accept-Encoding and unpacks the answer would make another
// variant of the page than this node.
func TestOwnerSeesTheAcceptEncodingOfTheClient(t *testing.T) {
	var got *http.Request
	owner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer owner.Close()
	h := toOwner(t, notHere(t), httpcoalesce.OwnerOptions{Self: "a", Owners: members(t, map[string]string{"b": owner.URL})})
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://pages.example/", nil))
	require.Empty(t, got.Header.Get("Accept-Encoding"))
}
