{{/* Where and as whom every pod runs: (list . nodeSelector account) */}}
{{- define "dasrec.podCommon" -}}
{{- $ := first . -}}
{{- $account := last . -}}
{{- $clusters := and (include "dasrec.makesClusters" $) (eq $account (include "dasrec.runnerAccount" $)) -}}
serviceAccountName: {{ $account }}
automountServiceAccountToken: {{ not (empty $clusters) }}
# variables of Services would be taken for Dask's configuration
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $.Values.podSecurity.runAsUser }}
  runAsGroup: {{ $.Values.podSecurity.runAsGroup }}
  fsGroup: {{ $.Values.podSecurity.fsGroup }}
  seccompProfile:
    type: RuntimeDefault
{{- with $.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with index . 1 }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
tolerations:
  {{- range list "not-ready" "unreachable" }}
  - key: node.kubernetes.io/{{ . }}
    operator: Exists
    effect: NoExecute
    tolerationSeconds: {{ $.Values.tolerationSeconds }}
  {{- end }}
  {{- with $.Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "dasrec.containerCommon" -}}
image: {{ include "dasrec.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- if eq .Values.storage.kind "object" }}
{{- with .Values.storage.object.existingSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* One thread of BLAS a task, freed memory kept, silent hosts given up soon. */}}
{{- define "dasrec.env" -}}
- name: MALLOC_MMAP_THRESHOLD_
  value: "33554432"
{{- range list "OMP_NUM_THREADS" "OPENBLAS_NUM_THREADS" "MKL_NUM_THREADS" }}
- name: {{ . }}
  value: "1"
{{- end }}
- name: DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP
  value: {{ .Values.dask.tcpTimeout }}
- name: DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT
  value: {{ .Values.dask.connectTimeout }}
- name: DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL
  value: {{ .Values.dask.workerTtl }}
- name: DASK_TEMPORARY_DIRECTORY
  value: /tmp
- name: NUMBA_CACHE_DIR
  value: {{ ternary (printf "%s/.cache/numba" .Values.storage.mountPath) "/tmp/numba" (and .Values.storage.keepKernels (eq .Values.storage.kind "pvc")) }}
- name: HOME
  value: /tmp
# dask-kubernetes asks who this is, and no user has this number
- name: USER
  value: dasrec
- name: DASREC_ROOT
  value: {{ include "dasrec.root" . }}
{{- if eq .Values.storage.kind "object" }}
{{- with .Values.storage.object.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "dasrec.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if eq .Values.storage.kind "pvc" }}
- name: data
  mountPath: {{ .Values.storage.mountPath }}
{{- end }}
{{- end }}

{{- define "dasrec.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 2Gi
{{- if eq .Values.storage.kind "pvc" }}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "dasrec.claim" . }}
{{- end }}
{{- end }}

{{/* A healthy process answers by HTTP; the argument says how often it may fail to. */}}
{{- define "dasrec.probes" -}}
startupProbe:
  httpGet: {path: /health, port: http-dashboard}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 150
readinessProbe:
  httpGet: {path: /health, port: http-dashboard}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /health, port: http-dashboard}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: {{ . }}
{{- end }}

{{- define "dasrec.schedulerPod" -}}
{{- include "dasrec.podCommon" (list . .Values.scheduler.nodeSelector (include "dasrec.serviceAccount" .)) }}
containers:
  - name: scheduler
    {{- include "dasrec.containerCommon" . | nindent 4 }}
    command: [dask, scheduler, --host, 0.0.0.0, --port, "8786", --dashboard-address, ":8787"]
    env:
      {{- include "dasrec.env" . | nindent 6 }}
      # by this the operator asks which workers can go; nobody is asked for a password
      - name: DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES
        value: "['distributed.http.scheduler.prometheus', 'distributed.http.scheduler.info', 'distributed.http.scheduler.json', 'distributed.http.scheduler.api', 'distributed.http.health', 'distributed.http.proxy', 'distributed.http.statics']"
    ports:
      - {name: tcp-comm, containerPort: 8786, protocol: TCP}
      - {name: http-dashboard, containerPort: 8787, protocol: TCP}
    {{- include "dasrec.probes" 4 | nindent 4 }}
    resources:
      {{- toYaml .Values.scheduler.resources | nindent 6 }}
    volumeMounts:
      {{- include "dasrec.mounts" . | nindent 6 }}
volumes:
  {{- include "dasrec.volumes" . | nindent 2 }}
{{- end }}

{{/* The operator names the worker and its scheduler; without it the chart does. */}}
{{- define "dasrec.workerPod" -}}
{{- include "dasrec.podCommon" (list . .Values.worker.nodeSelector (include "dasrec.serviceAccount" .)) }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "dasrec.selector" . | nindent 8 }}
        app.kubernetes.io/component: worker
containers:
  - name: worker
    {{- include "dasrec.containerCommon" . | nindent 4 }}
    command:
      - dask
      - worker
      - --name=$(DASK_WORKER_NAME)
      - --nthreads={{ .Values.worker.threads }}
      - --memory-limit=$(MEMORY_LIMIT)
      - --local-directory=/spill
      - --dashboard-address=:8788
    env:
      {{- include "dasrec.env" . | nindent 6 }}
      - name: MEMORY_LIMIT
        valueFrom:
          resourceFieldRef: {resource: limits.memory}
      {{- if not (include "dasrec.operator" .) }}
      - name: DASK_WORKER_NAME
        valueFrom:
          fieldRef: {fieldPath: metadata.name}
      - name: DASK_SCHEDULER_ADDRESS
        value: {{ include "dasrec.schedulerAddress" . }}
      {{- end }}
    ports:
      - {name: http-dashboard, containerPort: 8788, protocol: TCP}
    # a worker that computes may answer late, and one that the nanny restarts does not at all
    {{- include "dasrec.probes" 8 | nindent 4 }}
    resources:
      {{- toYaml .Values.worker.resources | nindent 6 }}
    volumeMounts:
      {{- include "dasrec.mounts" . | nindent 6 }}
      - name: spill
        mountPath: /spill
volumes:
  {{- include "dasrec.volumes" . | nindent 2 }}
  - name: spill
    emptyDir:
      sizeLimit: {{ .Values.worker.spillSize }}
{{- end }}

{{- define "dasrec.runCommand" -}}
{{- if .Values.job.command }}
{{- toYaml .Values.job.command }}
{{- else -}}
- dasrec
- --cluster
- {{ include "dasrec.where" . }}
- run
- /etc/dasrec/workflow.yaml
- --resume
{{- range .Values.workflow.set }}
- --set
- {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "dasrec.runnerPod" -}}
{{- include "dasrec.podCommon" (list . .Values.job.nodeSelector (include "dasrec.runnerAccount" .)) }}
restartPolicy: Never
{{- if include "dasrec.hasCluster" . }}
initContainers:
  - name: wait
    {{- include "dasrec.containerCommon" . | nindent 4 }}
    command:
      - python
      - -c
      - |
        {{- .Files.Get "files/wait.py" | nindent 8 }}
      - {{ include "dasrec.schedulerAddress" . }}
      - {{ .Values.job.waitForWorkers | quote }}
      - {{ .Values.job.waitSeconds | quote }}
    env:
      {{- include "dasrec.env" . | nindent 6 }}
    resources:
      {{- toYaml .Values.job.resources | nindent 6 }}
    volumeMounts:
      {{- include "dasrec.mounts" . | nindent 6 }}
{{- end }}
containers:
  - name: run
    {{- include "dasrec.containerCommon" . | nindent 4 }}
    command:
      {{- if include "dasrec.retriesHere" . }}
      - sh
      - -c
      - |
        # a DaskJob starts its pod once, so that it is here that a run goes on after a failure;
        # 2 says that the workflow itself is wrong
        trap 'stop=1; kill "$child"' TERM
        for try in $(seq 0 {{ .Values.job.retries }}); do
            "$@" & child=$!
            wait "$child"; code=$?
            [ -z "$stop" ] || wait "$child"
            case $code/$stop in 0/*|2/*|*/1) break ;; esac
            echo "The run ended with status $code" >&2; sleep 5
        done
        exit "$code"
      - run
      {{- end }}
      {{- include "dasrec.runCommand" . | nindent 6 }}
    env:
      {{- include "dasrec.env" . | nindent 6 }}
    resources:
      {{- toYaml .Values.job.resources | nindent 6 }}
    volumeMounts:
      {{- include "dasrec.mounts" . | nindent 6 }}
      {{- include "dasrec.configMount" . | nindent 6 }}
volumes:
  {{- include "dasrec.volumes" . | nindent 2 }}
  {{- include "dasrec.configVolume" . | nindent 2 }}
{{- end }}

{{- define "dasrec.configMount" -}}
- name: config
  mountPath: /etc/dasrec
  readOnly: true
{{- end }}

{{/* The workflow, and how clusters are made that are made while it runs. */}}
{{- define "dasrec.configVolume" -}}
- name: config
  projected:
    sources:
      {{- if include "dasrec.runs" . }}
      - configMap:
          name: {{ default (printf "%s-workflow" (include "dasrec.fullname" .)) .Values.workflow.existingConfigMap }}
      {{- end }}
      {{- if include "dasrec.makesClusters" . }}
      - configMap:
          name: {{ include "dasrec.fullname" . }}-cluster
      {{- end }}
{{- end }}

{{- define "dasrec.retriesHere" -}}
{{- if and (eq .Values.mode "job") (include "dasrec.operator" .) }}true{{ end }}
{{- end }}

{{- define "dasrec.jobSpec" -}}
backoffLimit: {{ .Values.job.retries }}
{{- if .Values.job.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ .Values.job.activeDeadlineSeconds }}
{{- end }}
ttlSecondsAfterFinished: {{ .Values.job.ttlSecondsAfterFinished }}
{{- if semverCompare ">=1.26.0-0" .Capabilities.KubeVersion.Version }}
# 2 says that the workflow itself is wrong; a pod that had to leave its node does not count
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
    - action: FailJob
      onPodConditions: []  # up to 1.28 its schema asks for it
      onExitCodes: {containerName: run, operator: In, values: [2]}
{{- end }}
template:
  metadata:
    labels:
      {{- include "dasrec.podLabels" (list . "run") | nindent 6 }}
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "dasrec.runnerPod" . | nindent 4 }}
{{- end }}

{{/* Scheduler and workers as the operator wants them. */}}
{{- define "dasrec.clusterSpec" -}}
scheduler:
  metadata:
    labels:
      {{- include "dasrec.podLabels" (list . "scheduler") | nindent 6 }}
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "dasrec.schedulerPod" . | nindent 4 }}
  service:
    type: ClusterIP
    selector:
      dask.org/cluster-name: {{ include "dasrec.cluster" . }}
      dask.org/component: scheduler
    ports:
      - {name: tcp-comm, port: 8786, targetPort: tcp-comm, protocol: TCP}
      - {name: http-dashboard, port: 8787, targetPort: http-dashboard, protocol: TCP}
worker:
  replicas: {{ .Values.worker.replicas }}
  metadata:
    labels:
      {{- include "dasrec.podLabels" (list . "worker") | nindent 6 }}
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "dasrec.workerPod" . | nindent 4 }}
{{- end }}
