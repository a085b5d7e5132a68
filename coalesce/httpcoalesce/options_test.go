package httpcoalesce_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

func TestNewNamesWhatIsWrong(t *testing.T) {
	for want, o := range map[string]httpcoalesce.Options{
		"MaxBuffer is -1":      {MaxBuffer: -1},
		"Timeout is -1ns":      {Timeout: -1},
		`KeyHeaders has ""`:    {KeyHeaders: []string{"A", ""}},
		`KeyHeaders has "a b"`: {KeyHeaders: []string{"a b"}},
	} {
		_, err := httpcoalesce.New(http.NotFoundHandler(), o)
		require.ErrorContains(t, err, want)
	}
	_, err := httpcoalesce.New(nil, httpcoalesce.Options{})
	require.ErrorContains(t, err, "next is nil")
}

func TestARequestThatIsNotCollapsedCostsNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	h, err := httpcoalesce.New(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), httpcoalesce.Options{})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	for name, r := range map[string]*http.Request{
		"method":        request("POST", "/"),
		"range":         get("/", "Range: bytes=0-"),
		"credentials":   get("/", "Cookie: a=b"),
		"cache control": get("/", "Cache-Control: no-store"),
	} {
		require.Zero(t, testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }), name)
	}
}
