{{- define "halyard-upstream.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Short enough for the suffixes of other objects. */}}
{{- define "halyard-upstream.fullname" -}}
{{- $name := include "halyard-upstream.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "halyard-upstream.selectorLabels" -}}
app.kubernetes.io/name: {{ include "halyard-upstream.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "halyard-upstream.labels" -}}
{{ include "halyard-upstream.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: upstream
app.kubernetes.io/part-of: halyard
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "halyard-upstream.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "halyard-upstream.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "halyard-upstream.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- /* Empty when the upstream is to make a signing key of its own. */}}
{{- define "halyard-upstream.secretName" -}}
{{- with .Values.signingKey }}
{{- if .value }}{{ include "halyard-upstream.fullname" $ }}-signing-key{{ else }}{{ .existingSecret }}{{ end }}
{{- end }}
{{- end }}

{{- /* A table and those in it, as TOML. Strings, numbers, booleans and lists are written alike in JSON and TOML. */}}
{{- define "halyard-upstream.toml" -}}
[{{ .path }}]
{{ range $name, $value := .table }}{{ if not (kindIs "map" $value) }}{{ $name }} = {{ toJson $value }}
{{ end }}{{ end }}
{{- range $name, $value := .table }}{{ if kindIs "map" $value }}
{{ include "halyard-upstream.toml" (dict "path" (printf "%s.%s" $.path $name) "table" $value) }}
{{- end }}{{ end }}
{{- end }}

{{- /* One process writes to SQLite: a second one would have a database of its own, and people would see either. */}}
{{- define "halyard-upstream.replicas" -}}
{{- if and .Values.database.existingSecret (not (include "halyard-upstream.secretName" .)) }}
{{- fail "database: PostgreSQL needs signingKey.existingSecret or signingKey.value, the same key for all upstreams" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.existingSecret) }}
{{- fail "replicas: more than one upstream need PostgreSQL; set database.existingSecret" }}
{{- end }}
{{- .Values.replicas }}
{{- end }}

{{- define "halyard-upstream.config" -}}
{{- $owned := dict "serve" (dict "host" "0.0.0.0" "port" 8700) "data" (dict "dir" "/data") }}
{{- if include "halyard-upstream.secretName" . }}
{{- $_ := set $owned "auth" (dict "signing_key_file" "/run/secrets/halyard/signing-key") }}
{{- end }}
{{- if .Values.database.existingSecret }}
{{- $_ := set $owned "database" (dict "url_file" "/run/secrets/halyard-database/database-url") }}
{{- end }}
{{- if .Values.redis.existingSecret }}
{{- $_ := set $owned "redis" (dict "url_file" "/run/secrets/halyard-redis/redis-url") }}
{{- end }}
{{- include "halyard-upstream.toml" (dict "path" "upstream" "table" (mergeOverwrite (deepCopy .Values.config) $owned)) }}
{{- end }}

{{- /* The phases of the drain, and 15 s for what they take beyond their limits and for ending the process. */}}
{{- define "halyard-upstream.graceSeconds" -}}
{{- $drain := .Values.config.drain | default dict }}
{{- addf (dig "accept_s" 5 $drain) (dig "window_s" 30 $drain) (dig "forward_s" 10 $drain) 15 | ceil | int }}
{{- end }}

{{- define "halyard-upstream.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "halyard-upstream.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "halyard-upstream.volumeMounts" -}}
- name: data
  mountPath: /data
- name: config
  mountPath: /etc/halyard
  readOnly: true
{{- if include "halyard-upstream.secretName" . }}
- name: signing-key
  mountPath: /run/secrets/halyard
  readOnly: true
{{- end }}
{{- if .Values.database.existingSecret }}
- name: database-url
  mountPath: /run/secrets/halyard-database
  readOnly: true
{{- end }}
{{- if .Values.redis.existingSecret }}
- name: redis-url
  mountPath: /run/secrets/halyard-redis
  readOnly: true
{{- end }}
{{- end }}
