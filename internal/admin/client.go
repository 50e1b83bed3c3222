package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Client calls verbs, of a running server or of a handler in this process.
type Client struct {
	http   *http.Client
	remote bool
}

// ErrNobody says that no server listens on the socket.
var ErrNobody = errors.New("no server listens there")

// dialTime bounds the wait for a server that is there and does not accept.
const dialTime = 5 * time.Second

// Dial returns a client of the server that listens on the socket; ErrNobody when
// there is none, whether the socket's file is missing or was left behind.
func Dial(ctx context.Context, socket string) (*Client, error) {
	dial := func(ctx context.Context) (conn net.Conn, err error) {
		dialer := net.Dialer{Timeout: dialTime}
		err = shortly(socket, func(name string) (err error) { conn, err = dialer.DialContext(ctx, "unix", name); return err })
		return conn, err
	}
	conn, err := dial(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", socket, ErrNobody)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open %s: permission denied: run this as the server's user", socket)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the running server: %w", err)
	}
	_ = conn.Close() // it was only to see who is there
	return &Client{remote: true, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}, nil
}

// Local returns a client of a handler in this process, for the user with this uid.
func Local(h http.Handler, uid int) *Client {
	return &Client{http: &http.Client{Transport: inProcess{h, uid}}}
}

// Remote says whether calls go to another process.
func (c *Client) Remote() bool { return c.remote }

// Call calls a verb and decodes its answer. A refusal is an *Error.
func Call[Out any](ctx context.Context, c *Client, verb string, in any) (Out, error) {
	var out Out
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("%s: %w", verb, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/"+verb, bytes.NewReader(body))
	if err != nil {
		return out, fmt.Errorf("%s: %w", verb, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return out, fmt.Errorf("%s: %w", verb, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(text) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	if err != nil {
		return out, fmt.Errorf("%s: read answer: %w", verb, err)
	}
	if resp.StatusCode != http.StatusOK {
		var a answer
		if err := json.Unmarshal(text, &a); err != nil || a.Error == "" {
			a.Error = fmt.Sprintf("%s: the server answered %s", verb, resp.Status)
		}
		return out, &Error{Status: resp.StatusCode, Message: a.Error, RequestID: a.RequestID}
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("%s: read answer: %w", verb, err)
	}
	return out, nil
}

// inProcess hands requests to a handler and gathers its answer.
type inProcess struct {
	h   http.Handler
	uid int
}

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &gathered{header: http.Header{}, status: http.StatusOK}
	t.h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), uidKey{}, t.uid)))
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Header: w.header, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
	}, nil
}

type gathered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (g *gathered) Header() http.Header         { return g.header }
func (g *gathered) WriteHeader(status int)      { g.status = status }
func (g *gathered) Write(b []byte) (int, error) { return g.body.Write(b) }
