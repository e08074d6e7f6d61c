{{- define "dasrec.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters, so that a cluster of one run is named within Dask's 53. */}}
{{- define "dasrec.fullname" -}}
{{- $name := include "dasrec.name" . }}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $both .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "dasrec.selector" -}}
app.kubernetes.io/name: {{ include "dasrec.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dasrec.labels" -}}
{{ include "dasrec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of a pod: (list . "worker") */}}
{{- define "dasrec.podLabels" -}}
{{- $ := first . }}
{{- include "dasrec.selector" $ }}
app.kubernetes.io/component: {{ last . }}
{{- with $.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "dasrec.image" -}}
{{- $i := .Values.image }}
{{- if $i.digest }}{{ $i.repository }}@{{ $i.digest }}{{ else }}{{ $i.repository }}:{{ default .Chart.AppVersion $i.tag }}{{ end }}
{{- end }}

{{/* "true" if the operator makes scheduler and workers. */}}
{{- define "dasrec.operator" -}}
{{- $known := .Capabilities.APIVersions.Has "kubernetes.dask.org/v1" }}
{{- if or (eq .Values.operator.use "always") (and $known (eq .Values.operator.use "auto")) }}true{{ end }}
{{- end }}

{{/* "true" if a notebook, or each run, makes clusters by the operator. */}}
{{- define "dasrec.makesClusters" -}}
{{- if or (eq .Values.mode "notebook") (and (eq .Values.mode "cron") .Values.cron.ownCluster) }}
{{- include "dasrec.operator" . }}
{{- end }}
{{- end }}

{{/* "true" if this release itself has a scheduler and workers. */}}
{{- define "dasrec.hasCluster" -}}
{{- if not (include "dasrec.makesClusters" .) }}true{{ end }}
{{- end }}

{{/* "true" if the release runs the workflow. */}}
{{- define "dasrec.runs" -}}
{{- if has .Values.mode (list "job" "cron") }}true{{ end }}
{{- end }}

{{- define "dasrec.run" -}}
{{ include "dasrec.fullname" . }}-r{{ default (toString .Release.Revision) .Values.job.runId }}
{{- end }}

{{/* The operator does not change pods that it has made, so what would change them changes the name. */}}
{{- define "dasrec.cluster" -}}
{{- if eq .Values.mode "job" }}
{{- include "dasrec.run" . }}
{{- else }}
{{- $pods := list (include "dasrec.schedulerPod" .) (include "dasrec.workerPod" .) .Values.podLabels .Values.podAnnotations }}
{{- printf "%s-%s" (include "dasrec.fullname" .) ($pods | toJson | sha256sum | trunc 8) }}
{{- end }}
{{- end }}

{{/* What `dasrec --cluster` gets: the address of a scheduler, or a file that describes a cluster. */}}
{{- define "dasrec.where" -}}
{{- if include "dasrec.makesClusters" . }}/etc/dasrec/cluster.yaml{{ else }}{{ include "dasrec.schedulerAddress" . }}{{ end }}
{{- end }}

{{- define "dasrec.schedulerAddress" -}}
tcp://{{ include "dasrec.fullname" . }}-scheduler:8786
{{- end }}

{{/* The account of pods that may make clusters; the others have no rights. */}}
{{- define "dasrec.runnerAccount" -}}
{{- if include "dasrec.makesClusters" . }}{{ include "dasrec.fullname" . }}-clusters{{ else }}{{ include "dasrec.serviceAccount" . }}{{ end }}
{{- end }}

{{- define "dasrec.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "dasrec.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "dasrec.claim" -}}
{{- default (include "dasrec.fullname" .) .Values.storage.pvc.existingClaim }}
{{- end }}

{{/* Where stores, models and lists lie. */}}
{{- define "dasrec.root" -}}
{{- if eq .Values.storage.kind "object" }}{{ .Values.storage.object.url }}{{ else if eq .Values.storage.kind "pvc" }}{{ .Values.storage.mountPath }}{{ else }}/tmp{{ end }}
{{- end }}
