package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/attic-action/internal/api"
)

// maxErrorBody bounds an answer that is not a success: 409 may list every chunk
// of a request, 67 bytes each.
const maxErrorBody = 16 << 20

// errBody marks a request body that could not be read here.
var errBody = errors.New("read request body")

// call is one request.
type call struct {
	method, path string
	query        string
	body         func() (io.Reader, error) // again for each attempt; nil sends none
	header       http.Header
	limit        int64 // bytes of a good answer
}

// bytesBody is a body that is in memory.
func bytesBody(b []byte) func() (io.Reader, error) {
	return func() (io.Reader, error) { return bytes.NewReader(b), nil }
}

// do sends a request until it is answered for good, and returns the body of a
// success; any other status is a *StatusError.
func (c *Client) do(ctx context.Context, in call) ([]byte, error) {
	target, err := api.URL(c.base.String(), in.path)
	if err != nil {
		return nil, fmt.Errorf("build URL of %s: %w", in.path, err)
	}
	if in.query != "" {
		target += "?" + in.query
	}
	var raw any
	if in.body != nil {
		raw = retryablehttp.ReaderFunc(in.body)
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, in.method, target, raw)
	if err != nil {
		return nil, fmt.Errorf("build request %s: %w", in.path, err)
	}
	for k, v := range in.header {
		req.Header[k] = v
	}
	var body []byte
	req.SetResponseHandler(func(resp *http.Response) (err error) {
		limit := in.limit
		if resp.StatusCode/100 != 2 {
			limit = maxErrorBody
		}
		body, err = readAnswer(resp, limit)
		return err
	})
	resp, err := c.retry.Do(req)
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, err // names method and URL
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return body, nil
	}
	if body == nil { // out of attempts: nobody has read this one
		body, _ = readAnswer(resp, maxErrorBody) // what can be read of it is for people
	}
	return nil, statusError(resp, body)
}

func readAnswer(resp *http.Response, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrAnswer, limit)
	}
	return b, nil
}
