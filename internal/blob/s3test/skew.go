package s3test

import (
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const amzTime = "20060102T150405Z"

// resign checks the time of a request by a clock that is ahead by skew, and signs
// it again by the right one, which is the server's behind the proxy.
func (p *Proxy) resign(r *http.Request, skew time.Duration) bool {
	query := r.URL.Query()
	text, life := r.Header.Get("X-Amz-Date"), 15*time.Minute
	if presigned := query.Get("X-Amz-Date"); presigned != "" {
		text = presigned
		seconds, err := strconv.Atoi(query.Get("X-Amz-Expires"))
		if err != nil {
			return false
		}
		life = time.Duration(seconds) * time.Second
		for name := range query {
			if len(name) > 6 && name[:6] == "X-Amz-" {
				query.Del(name)
			}
		}
		r.URL.RawQuery = query.Encode()
	}
	signed, err := time.Parse(amzTime, text)
	age := time.Now().Add(skew).Sub(signed)
	if err != nil || age > life || age < -15*time.Minute {
		return false
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if hash == "" {
		hash = "UNSIGNED-PAYLOAD"
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	out := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, Header: r.Header, ContentLength: r.ContentLength}
	out.Header.Del("Authorization")
	creds := aws.Credentials{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	return signer.SignHTTP(r.Context(), creds, out, hash, "s3", Region, time.Now()) == nil
}
