# Names and messages that would be commands, markup or further outputs, were they taken for anything but text.
{ host, ... }:
let
  small = host { name = "small"; };
in {
  "a::error::x" = small;
  "::error::y" = small;
  "##[error]z" = small;
  "$(id)" = small;
  "`id`" = small;
  "<img src=x onerror=alert(1)>" = small;
  "two\nhosts=[\"evil\"]" = small;
  "![x](https://evil.example) | cell |" = small;
  "../../etc" = small;
  "%0A::error::w" = small;
  "\${{ github.token }}" = small;
  "liar" = host {
    name = "liar";
    dep = "echo liar > $out";
    build = "echo '::error::forged'; echo '::set-output name=hosts::forged'; echo '##[error]forged'; echo '::add-mask::small'; exit 1";
  };
}
