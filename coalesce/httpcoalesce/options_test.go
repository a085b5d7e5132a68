package httpcoalesce_test

import (
	"net/http"
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
