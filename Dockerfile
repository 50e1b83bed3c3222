# attic-server alone: one static program, CA certificates, no shell. `docker build -t attic-server .`
#
# It runs as 65532, which owns /data; fly.io gives a volume to the user of the image when it mounts it. A directory
# of the host that is mounted there has to belong to 65532 as well.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS=linux TARGETARCH VERSION
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH VERSION=$VERSION scripts/rootfs /rootfs && mkdir -m 0700 /data

FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title="attic-server" \
      org.opencontainers.image.description="A Nix binary cache that speaks Attic's protocol" \
      org.opencontainers.image.source="https://github.com/org/attic-action" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /rootfs /
COPY --from=build --chown=65532:65532 /data /data
# Where commands find what the server uses, without a flag: `docker exec … atticadm make-token`, fly's console.
ENV XDG_CONFIG_HOME=/etc XDG_DATA_HOME=/data PATH=/bin
USER 65532:65532
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/bin/attic-server"]
# Another CMD replaces this: ["-f", "/attic/server.toml", "--mode", "monolithic"] works as it did with Attic's image.
CMD ["--listen", "[::]:8080"]
