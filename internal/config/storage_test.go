package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// fly is what "fly storage create" sets.
var fly = []string{
	envBucket, "cache", envEndpoint, "https://fly.storage.tigris.dev", envRegion, "auto",
	envAccessKeyID, "tid_a", envSecretAccessKey, "tsec_hunter2",
}

func TestBucketFromEnvironmentAlone(t *testing.T) {
	s, err := Load(Options{Getenv: env(fly...)})
	if err != nil {
		t.Fatal(err)
	}
	want := Storage{Type: S3, Bucket: "cache", Endpoint: "https://fly.storage.tigris.dev", Region: "auto", AccessKeyID: "tid_a", SecretAccessKey: Secret("tsec_hunter2"),
		Redirect: RedirectAuto, CacheBytes: CacheAuto}
	if want.SessionToken = s.Storage.SessionToken; !reflect.DeepEqual(s.Storage, want) {
		t.Errorf("got %+v", s.Storage)
	}
	if s.Data != "/home/u/.local/share/attic-server" {
		t.Errorf("data in %s: the database and the spool are no part of the bucket", s.Data)
	}
	if text := fmt.Sprintf("%v %+v %#v", s.Storage, s, s.Storage); strings.Contains(text, "hunter2") {
		t.Error("printing a configuration shows the secret")
	}
	if s, err := load(t, "listen = \"[::]:80\"\n", env(append(fly, envBucket, " cache\n", envAccessKeyID, "tid_a\n")...)); err != nil || s.Storage.Bucket != "cache" || s.Storage.AccessKeyID != "tid_a" {
		t.Errorf("a file without [storage], and variables with newlines: %+v, %v", s, err)
	}
}

func TestStorageTableComesBeforeTheEnvironment(t *testing.T) {
	s, err := load(t, `[storage]
type = "s3"
region = "eu-west-1"
bucket = "mine"
path-style = false
[storage.credentials]
access_key_id = "a"
secret_access_key = "s"
`, env(append(fly, envSessionToken, "other credentials'")...))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Storage; got.Bucket != "mine" || got.Region != "eu-west-1" || got.AccessKeyID != "a" || string(got.SecretAccessKey) != "s" ||
		len(got.SessionToken) != 0 || got.PathStyle == nil || *got.PathStyle {
		t.Errorf("got %+v", got)
	}
	if s.Storage.Endpoint != "https://fly.storage.tigris.dev" {
		t.Errorf("endpoint %q: what the table leaves out comes from the environment", s.Storage.Endpoint)
	}
	s, err = load(t, "[storage]\ntype = \"local\"\npath = \"/s\"\n", env(fly...))
	if err != nil || s.Storage.Type != Local {
		t.Fatalf("got %+v, %v", s, err)
	}
	if len(s.Warnings) != 1 || s.Warnings[0] != "server.toml:2: key storage.type: BUCKET_NAME is set too, and not used: this file comes first" {
		t.Errorf("warnings: %q", s.Warnings)
	}
}

// What Attic wrote, with nothing else: the role of the machine has the credentials.
func TestS3WithoutCredentialsLeavesThemToTheStore(t *testing.T) {
	s, err := load(t, "[storage]\ntype = \"s3\"\nregion = \"eu-west-1\"\nbucket = \"b\"\n", env())
	if err != nil || s.Storage.AccessKeyID != "" || len(s.Storage.SecretAccessKey) > 0 || s.Storage.Endpoint != "" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestStorageErrorsNameKeyOrVariable(t *testing.T) {
	with := func(changes ...string) []string { return append(append([]string{}, fly...), changes...) }
	for name, c := range map[string]struct {
		text string
		env  []string
		want string
	}{
		"half of the credentials":  {"", with(envSecretAccessKey, ""), "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"},
		"other half":               {"", with(envAccessKeyID, ""), "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"},
		"auto without endpoint":    {"", with(envEndpoint, ""), `region "auto" is no region of Amazon's`},
		"no region":                {"", with(envEndpoint, "", envRegion, ""), "no region, and AWS_REGION is not set"},
		"endpoint with password":   {"", with(envEndpoint, "https://u:hunter2@h/"), "AWS_ENDPOINT_URL_S3: a URL with a password"},
		"endpoint is no URL":       {"", with(envEndpoint, "u:hunter2@h"), "AWS_ENDPOINT_URL_S3: not a URL like"},
		"endpoint with the bucket": {"", with(envEndpoint, "https://x.r2.cloudflarestorage.com/cache/"), "leave /cache out"},
		"bucket with a slash":      {"", with(envBucket, "https://x/cache"), "BUCKET_NAME: a bucket's name has no slash"},
		"bucket with a blank":      {"", with(envBucket, "my cache"), "BUCKET_NAME: \"my cache\" has blanks"},
		"no bucket anywhere":       {"[storage]\ntype = \"s3\"\nregion = \"x\"", nil, "server.toml:1: key storage: no bucket, and BUCKET_NAME is not set"},
		"empty bucket":             {"[storage]\ntype = \"s3\"\nbucket = \"\"", nil, "server.toml:3: key storage.bucket: it is empty"},
		"endpoint in the file":     {"[storage]\ntype = \"s3\"\nbucket = \"b\"\nregion = \"x\"\nendpoint = \"minio:9000\"", nil, "server.toml:5: key storage.endpoint: not a URL like"},
		"style":                    {"[storage]\ntype = \"s3\"\npath-style = \"yes\"", nil, "server.toml:3: key storage.path-style: want true or false"},
		"credentials misspelt":     {"[storage]\ntype = \"s3\"\nbucket = \"b\"\nregion = \"x\"\n[storage.credentials]\naccess-key-id = \"x\"", nil, "server.toml:5: key storage.credentials: no access_key_id"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text, env(c.env...))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q shows a secret or has several lines", err)
			}
			if c.text == "" && strings.Contains(err.Error(), "server.toml:") {
				t.Errorf("%q names a line of a file that says nothing of it", err)
			}
		})
	}
}

func TestEndpointWithoutBucketIsWarnedOf(t *testing.T) {
	s, err := Load(Options{Getenv: env(envEndpoint, "https://fly.storage.tigris.dev")})
	if err != nil || s.Storage.Type != Local || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "contents stay on this disk") {
		t.Errorf("got %+v, %v", s, err)
	}
}
