{{/* Name of every object. A pod's name is it with a number, and must fit in a label with the hash of a revision: 52. */}}
{{- define "pawl.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pawl.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of the pods that process, as against those of the jobs. */}}
{{- define "pawl.processorLabels" -}}
{{ include "pawl.selectorLabels" . }}
app.kubernetes.io/component: processor
{{- end -}}

{{- define "pawl.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "pawl.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "pawl.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pawl.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pawl.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Port of the operations HTTP, from admin.listen. The kubelet and Prometheus come from outside the pod. */}}
{{- define "pawl.adminPort" -}}
{{- $listen := dig "admin" "listen" ":9090" .Values.config -}}
{{- if regexMatch "^(localhost|127\\.|\\[::1\\])" $listen -}}
{{- fail (printf "config.admin.listen is %s, which the kubelet cannot reach: give a port alone, such as \":9090\"" $listen) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $listen -}}
{{- end -}}

{{/* A duration as Pawl's configuration has it (1h30m, 500ms, 14d) in whole seconds, rounded up. */}}
{{- define "pawl.seconds" -}}
{{- $unit := dict "d" 86400000.0 "h" 3600000.0 "m" 60000.0 "s" 1000.0 "ms" 1.0 "us" 0.001 "µs" 0.001 "ns" 0.000001 -}}
{{- $milliseconds := 0.0 -}}
{{- range regexFindAll "[0-9.]+(d|h|ms|m|s|us|µs|ns)" . -1 -}}
{{- $milliseconds = addf $milliseconds (mulf (float64 (regexFind "^[0-9.]+" .)) (get $unit (regexFind "[^0-9.]+$" .))) -}}
{{- end -}}
{{- divf $milliseconds 1000.0 | ceil | int -}}
{{- end -}}

{{- define "pawl.drainSeconds" -}}
{{- include "pawl.seconds" (dig "txn" "drain_timeout" "25s" .Values.config) -}}
{{- end -}}

{{/* SIGTERM begins a drain, SIGKILL must not come before its end. */}}
{{- define "pawl.graceSeconds" -}}
{{- $drain := include "pawl.drainSeconds" . | int -}}
{{- if eq (int .Values.terminationGracePeriodSeconds) 0 -}}
{{- add $drain 15 -}}
{{- else if le (int .Values.terminationGracePeriodSeconds) $drain -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but config.txn.drain_timeout is %d s: give the pod more, or 0 for drain_timeout and 15 s" (int .Values.terminationGracePeriodSeconds) $drain) -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/*
The secrets as a list of {file, env, name, key}. The name of a file is that of its value, the variable is the setting
that names the file.
*/}}
{{- define "pawl.secretFiles" -}}
{{- $env := dict
  "postgresDsn"   "PROCESSOR_POSTGRES_DSN_FILE"
  "kafkaPassword" "PROCESSOR_KAFKA_SASL_PASSWORD_FILE"
  "kafkaToken"    "PROCESSOR_KAFKA_SASL_TOKEN_FILE"
  "kafkaCa"       "PROCESSOR_KAFKA_TLS_CA_FILE"
  "kafkaCert"     "PROCESSOR_KAFKA_TLS_CERT_FILE"
  "kafkaKey"      "PROCESSOR_KAFKA_TLS_KEY_FILE"
  "adminToken"    "PROCESSOR_ADMIN_TOKEN_FILE" -}}
{{- $files := list -}}
{{- range $value, $secret := omit .Values.secrets "files" -}}
{{- if $secret.name -}}
{{- $files = append $files (dict "file" (kebabcase $value) "env" (get $env $value) "name" $secret.name "key" $secret.key) -}}
{{- end -}}
{{- end -}}
{{- range $file, $secret := .Values.secrets.files -}}
{{- $files = append $files (dict "file" $file "env" "" "name" $secret.name "key" $secret.key) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* What would go wrong quietly is refused aloud. */}}
{{- define "pawl.check" -}}
{{- if dig "instance" "" .Values.config -}}
{{- fail "config.instance would give every pod one name, and pods of one name fence each other: leave it out, the name is the pod's" -}}
{{- end -}}
{{- if dig "postgres" "dsn" "" .Values.config -}}
{{- fail "config.postgres.dsn would stand in a ConfigMap: put it into a Secret and name that in secrets.postgresDsn" -}}
{{- end -}}
{{- if and .Values.leaveOnStop (not .Values.secrets.adminToken.name) (not (dig "admin" "token_file" "" .Values.config)) -}}
{{- fail "leaveOnStop orders each pod to leave its group, and orders need the token: name its Secret in secrets.adminToken" -}}
{{- end -}}
{{- $replicas := int (ternary .Values.keda.maxReplicas .Values.replicas .Values.keda.enabled) -}}
{{- $lanes := int (dig "txn" "lanes" 0 .Values.config) -}}
{{- if and (gt (int .Values.partitions) 0) (gt (mul $replicas $lanes) (int .Values.partitions)) -}}
{{- fail (printf "%d pods of %d lanes are more than the %d partitions, and lanes without a partition do nothing: lower %s or config.txn.lanes, or correct partitions" $replicas $lanes (int .Values.partitions) (ternary "keda.maxReplicas" "replicas" .Values.keda.enabled)) -}}
{{- end -}}
{{- if and .Values.keda.enabled (gt (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas)) -}}
{{- fail (printf "keda.minReplicas is %d, above keda.maxReplicas, which is %d" (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas)) -}}
{{- end -}}
{{- end -}}

{{/* The processor in a container of its own name: what the StatefulSet and the jobs have in common. */}}
{{- define "pawl.containerBasics" -}}
image: {{ include "pawl.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
{{- end -}}

{{/* The pod's part of the same. The numbers are the image's user. */}}
{{- define "pawl.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment, with the secret files as the settings that name them. */}}
{{- define "pawl.env" -}}
- name: PROCESSOR_CONFIG
  value: /etc/pawl/processor.yaml
- name: PROCESSOR_INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- range include "pawl.secretFiles" . | fromYamlArray }}
{{- if .env }}
- name: {{ .env }}
  value: /run/secrets/pawl/{{ .file }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pawl.volumeMounts" -}}
- name: config
  mountPath: /etc/pawl
  readOnly: true
{{- if include "pawl.secretFiles" . | fromYamlArray }}
- name: secrets
  mountPath: /run/secrets/pawl
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes; the argument is a list of the root, and the name of the ConfigMap. */}}
{{- define "pawl.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap:
    name: {{ index . 1 }}
{{- with include "pawl.secretFiles" $root | fromYamlArray }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret:
          name: {{ .name }}
          items:
            - key: {{ .key }}
              path: {{ .file }}
      {{- end }}
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pawl.job" -}}
{{- .Values.keda.job | default (printf "%s/%s" .Release.Namespace (include "pawl.fullname" .)) -}}
{{- end -}}
